"""Encoders of T5 v1.1 and umT5 as Hugging Face lays them in a folder, read into ours.

A folder holds

    config.json                              sizes, and which of the two it is
    *.safetensors                            one file, or several and an index
    spiece.model, or else tokenizer.json     or these are in another folder, which is named

Of a whole model the decoder is left out.
"""

import dataclasses
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np

from sora_jax.checkpoints import named
from sora_jax.data.json_tokenizer import JsonTokenizer
from sora_jax.data.schema import DataError
from sora_jax.data.tokenizer import Tokenizer
from sora_jax.errors import UserError
from sora_jax.models.t5 import Compute, T5Config, T5Encoder, abstract_encoder
from sora_jax.models.text import MAX_DISTANCE, NUM_BUCKETS
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.weights.safetensors_files import read_arrays, stored_shapes
from sora_jax.weights.text_encoders import save_encoder

Kind = Literal["t5", "umt5"]
SIZES = {
    "vocabulary": "vocab_size",
    "width": "d_model",
    "depth": "num_layers",
    "heads": "num_heads",
    "head_width": "d_kv",
    "hidden": "d_ff",
}
# What decides the numbers and is the same in all that are published; with what its absence means.
FIXED: dict[str, tuple[Any, Any]] = {
    "feed_forward_proj": ("gated-gelu", "relu"),
    "relative_attention_num_buckets": (NUM_BUCKETS, NUM_BUCKETS),
    "relative_attention_max_distance": (MAX_DISTANCE, MAX_DISTANCE),
    "layer_norm_epsilon": (1e-6, 1e-6),
    "pad_token_id": (0, 0),
    "eos_token_id": (1, 1),
}
IN_BLOCK = {
    "attention_norm.scale": "layer.0.layer_norm",
    "query.kernel": "layer.0.SelfAttention.q",
    "key.kernel": "layer.0.SelfAttention.k",
    "value.kernel": "layer.0.SelfAttention.v",
    "out.kernel": "layer.0.SelfAttention.o",
    "position_bias": "layer.0.SelfAttention.relative_attention_bias",
    "mlp_norm.scale": "layer.1.layer_norm",
    "gate.kernel": "layer.1.DenseReluDense.wi_0",
    "up.kernel": "layer.1.DenseReluDense.wi_1",
    "down.kernel": "layer.1.DenseReluDense.wo",
}
OUTSIDE_BLOCKS = {
    "position_bias": f"encoder.block.0.{IN_BLOCK['position_bias']}",  # of all, where it is shared
    "norm.scale": "encoder.final_layer_norm",
}
# One table by two names, of which files hold either or both.
EMBEDDINGS = ("shared.weight", "encoder.embed_tokens.weight")


def import_encoder(
    kind: Kind, source: Path, output: Path, compute: Compute, tokenizer: Path
) -> str:
    """Writes the encoder in a folder of Hugging Face's as a folder of ours, whole or not at all.
    `tokenizer`: the folder that has it. Returns a line about what was made.

    Raises:
        UserError: `source` is of another model, partial or damaged, or `output` cannot be written.
    """
    if output.exists():
        raise UserError(f"{output} is there already: choose another --output, or remove it")
    config = read_config(source, kind, compute)
    captions = read_tokenizer(tokenizer, config)
    abstract = abstract_encoder(config, make_mesh(MeshConfig()))
    shardings = {name: leaf.sharding for name, leaf in named(abstract).items()}
    # Over all that decides what it makes of captions.
    digest = hashlib.sha256(json.dumps([kind, dataclasses.asdict(config)]).encode())
    digest.update(captions.model)
    arrays = {}
    for name, array in read_parameters(source, abstract):
        digest.update(name.encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
        arrays[name] = jax.device_put(array, shardings[name])
    encoder_id = f"{kind}-{digest.hexdigest()[:12]}"
    save_encoder(output, encoder_id, config, arrays, captions)
    count = sum(array.size for array in arrays.values())
    return f"{output}: {encoder_id}, {count:,} parameters, {compute}, {config.width} wide"


def read_config(folder: Path, kind: Kind, compute: Compute = "bfloat16") -> T5Config:
    """Sizes of the encoder in a folder.

    Raises:
        UserError: there is no config.json, or it is of another model than asked for.
    """
    path = folder / "config.json"
    try:
        content = json.loads(path.read_bytes())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    if not isinstance(content, dict) or content.get("model_type") != kind:
        found = content.get("model_type") if isinstance(content, dict) else None
        raise UserError(f"{path} is of model_type {found!r}, for {kind!r}")
    for field, (wanted, absent) in FIXED.items():
        # umT5's own default differs from T5's in this one.
        found = content.get(field, wanted if kind == "umt5" else absent)
        if found != wanted:
            raise UserError(
                f"{path}: {field} is {found!r}, and only encoders with {wanted!r} can be imported"
            )
    sizes: dict[str, Any] = {ours: content.get(theirs) for ours, theirs in SIZES.items()}
    for ours, size in sizes.items():
        if not isinstance(size, int):
            raise UserError(f"{path}: {SIZES[ours]} is {size!r}, for a whole number")
    return T5Config(**sizes, shared_bias=kind == "t5", compute=compute)


def read_tokenizer(folder: Path, config: T5Config) -> Tokenizer | JsonTokenizer:
    """The tokenizer of a folder, its SentencePiece model where it has that.

    Raises:
        UserError: it has none, or one with more pieces than the encoder has embeddings.
    """
    made: Tokenizer | JsonTokenizer
    for name, kind in (("spiece.model", Tokenizer), ("tokenizer.json", JsonTokenizer)):
        path = folder / name
        if path.is_file():
            try:
                made = kind(path.read_bytes())
            except DataError as error:
                raise UserError(f"{path}: {error}") from error
            break
    else:
        raise UserError(
            f"{folder} has no spiece.model and no tokenizer.json: name the folder that has one "
            "with --tokenizer"
        )
    if made.vocabulary_size > config.vocabulary:
        raise UserError(
            f"{path} has {made.vocabulary_size} pieces, and the encoder embeddings of "
            f"{config.vocabulary}: it is of another model"
        )
    return made


def read_parameters(folder: Path, abstract: T5Encoder) -> Iterator[tuple[str, np.ndarray]]:
    """Parameters of an encoder by our names, in the shapes and dtypes of `abstract`; one by one, so
    that the host holds no more than the largest.

    Names and shapes are all checked before the first is given.

    Raises:
        UserError: as of `read_arrays`, or the table of embeddings is there twice, and differs.
    """
    leaves = named(abstract)
    stored = stored_shapes(folder)
    tables = [name for name in EMBEDDINGS if name in stored] or [EMBEDDINGS[0]]
    names = {
        name: tables if name == "embedding" else _their_names(name, abstract.config.depth)
        for name in leaves
    }
    shapes = {
        each: _their_shape(name, leaves[name].shape) for name in leaves for each in names[name]
    }
    read_arrays(folder, shapes, _is_of_decoder)  # which checks, and reads nothing yet

    def parameters() -> Iterator[tuple[str, np.ndarray]]:
        for name, leaf in leaves.items():
            own = {each: shapes[each] for each in names[name]}
            arrays = read_arrays(folder, own, ignored=lambda _: True)
            if name == "embedding":
                yield name, _one_table(folder, arrays).astype(leaf.dtype)
                continue
            made = np.empty(leaf.shape, leaf.dtype)
            for each, array in arrays:
                part = made[names[name].index(each)] if _is_stacked(name) else made
                part[...] = array.T if name.endswith(".kernel") else array
            yield name, made

    return parameters()


def _one_table(folder: Path, arrays: Iterator[tuple[str, np.ndarray]]) -> np.ndarray:
    name, table = next(arrays)
    for other, again in arrays:
        if not np.array_equal(table, again):
            raise UserError(f"{folder}: {name} and {other} differ, and are one table in T5")
    return table


def _their_names(name: str, depth: int) -> list[str]:
    """Names of what is one parameter here: a stack has one of each block."""
    if _is_stacked(name):
        rest = IN_BLOCK[name.removeprefix("blocks.")]
        return [f"encoder.block.{layer}.{rest}.weight" for layer in range(depth)]
    return [f"{OUTSIDE_BLOCKS[name]}.weight"]


def _their_shape(name: str, shape: tuple[int, ...]) -> tuple[int, ...]:
    shape = shape[1:] if _is_stacked(name) else shape
    return shape[::-1] if name.endswith(".kernel") else shape


def _is_stacked(name: str) -> bool:
    return name.startswith("blocks.")


def _is_of_decoder(name: str) -> bool:
    return name.startswith(("decoder.", "lm_head."))
