"""T5 v1.1 and umT5 beside `transformers` in float64, split and whole, and folders of neither.

Golden numbers were made by transformers 5.24.0 and torch 2.13.0, in an environment of their own
with PYTHONPATH=., from the folders of tests/tiny_t5.py, where its own float32 is 1.2e-6 away:

    model = T5EncoderModel.from_pretrained(write_folder(Path("tiny"), "t5")).eval().double()  # UMT5
    found = model(input_ids=IDS, attention_mask=(IDS != 0).long()).last_hidden_state
    {"places": [[found[row, place] for place in PLACES[row]] for row in range(4)],
     "means": [found[row, :LENGTHS[row]].mean(0) for row in range(4)]}
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from sora_jax.checkpoints import named, unnamed
from sora_jax.errors import UserError
from sora_jax.models.t5 import Compute, T5Encoder, abstract_encoder
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.sharding.rules import mesh_of
from sora_jax.types import Text
from sora_jax.weights.t5 import Kind, read_config, read_parameters, read_tokenizer
from tests.tiny_t5 import LENGTHS, PLACES, arrays, config, ids, write_folder

GOLDEN = json.loads((Path(__file__).parents[1] / "golden/t5.json").read_text())
KINDS: tuple[Kind, ...] = get_args(Kind)
IDS = ids().astype(np.int32)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


@pytest.fixture
def folder(kind: Kind, tmp_path: Path) -> Path:
    return write_folder(tmp_path / kind, kind)


def read(
    folder: Path, kind: Kind, compute: Compute = "float32", mesh: MeshConfig | None = None
) -> T5Encoder:
    """On one device by default."""
    devices = jax.devices() if mesh else jax.devices()[:1]
    abstract = abstract_encoder(
        read_config(folder, kind, compute), make_mesh(mesh or MeshConfig(), devices)
    )
    shardings = {name: leaf.sharding for name, leaf in named(abstract).items()}
    parameters = read_parameters(folder, abstract)
    return unnamed({n: jax.device_put(a, shardings[n]) for n, a in parameters}, abstract)


def encode(encoder: T5Encoder, ids: np.ndarray) -> Text:
    with jax.set_mesh(mesh_of(encoder)):
        return jax.device_get(jax.jit(lambda encoder, ids: encoder(ids))(encoder, ids))


@pytest.mark.parametrize("mesh", [None, MeshConfig(fsdp=2, context=2, tensor=2)])
def test_embeddings_are_those_of_transformers(
    folder: Path, kind: Kind, mesh: MeshConfig | None
) -> None:
    text = encode(read(folder, kind, mesh=mesh), IDS)
    for row, (length, places) in enumerate(zip(LENGTHS, PLACES, strict=True)):
        found = text.embeddings[row]
        expected = GOLDEN[kind]["places"][row]
        np.testing.assert_allclose(found[list(places)], expected, rtol=0, atol=1e-5)
        mean = GOLDEN[kind]["means"][row]
        np.testing.assert_allclose(found[:length].mean(0), mean, rtol=0, atol=1e-5)
        np.testing.assert_array_equal(found[length:], 0)
    np.testing.assert_array_equal(text.segments, IDS != 0)


def test_every_number_is_the_same_split_and_whole(folder: Path, kind: Kind) -> None:
    split = read(folder, kind, mesh=MeshConfig(fsdp=4, tensor=2))
    for kernel in (split.blocks.gate.kernel, split.embedding):
        [size] = {shard.data.size for shard in kernel.get_value().addressable_shards}
        assert 8 * size == kernel.size
    found, expected = encode(split, IDS), encode(read(folder, kind), IDS)
    np.testing.assert_allclose(found.embeddings, expected.embeddings, rtol=0, atol=1e-5)


def test_padding_changes_nothing_and_alone_is_finite(folder: Path, kind: Kind) -> None:
    encoder = read(folder, kind)
    short = encode(encoder, IDS[3:, :7])
    np.testing.assert_allclose(
        short.embeddings, encode(encoder, IDS).embeddings[3:, :7], rtol=0, atol=1e-5
    )
    nothing = encode(encoder, np.zeros((2, 5), np.int32))
    assert not nothing.embeddings.any()
    assert not nothing.segments.any()


def test_bfloat16_is_close_and_half_the_size(folder: Path, kind: Kind) -> None:
    half, whole = read(folder, kind, "bfloat16"), read(folder, kind)
    found, expected = (encode(each, IDS).embeddings for each in (half, whole))
    assert found.dtype == jnp.bfloat16
    assert np.abs(found.astype(np.float32) - expected).max() < 0.02 * np.abs(expected).max()
    sizes = [sum(leaf.nbytes for leaf in jax.tree.leaves(each)) for each in (half, whole)]
    assert sizes[0] < 0.55 * sizes[1]


def test_a_whole_model_in_several_files_gives_its_encoder(folder: Path, kind: Kind) -> None:
    expected = encode(read(folder, kind), IDS)
    every = arrays(kind)
    every["encoder.embed_tokens.weight"] = every["shared.weight"]
    every["decoder.final_layer_norm.weight"] = every["encoder.final_layer_norm.weight"]
    every["lm_head.weight"] = every["shared.weight"]
    (folder / "model.safetensors").unlink()
    parts = {f"model-{n}-of-3.safetensors": sorted(every)[n::3] for n in range(3)}
    for file, names in parts.items():
        save_file({name: every[name] for name in names}, folder / file)
    weight_map = {name: file for file, names in parts.items() for name in names}
    index = {"weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = encode(read(folder, kind), IDS)
    np.testing.assert_array_equal(found.embeddings, expected.embeddings)


Arrays = dict[str, np.ndarray]
MAP = "encoder.block.1.layer.0.SelfAttention.q.weight"
BIAS = "encoder.block.1.layer.0.SelfAttention.relative_attention_bias.weight"


def without(name: str) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {n: array for n, array in arrays.items() if n != name}


def with_one(name: str, array: np.ndarray) -> Callable[[Arrays], Arrays]:
    return lambda arrays: {**arrays, name: array}


WRONG: list[tuple[Callable[[Arrays], Arrays], str]] = [
    (without(MAP), rf"of another model: {MAP} is missing, for \(18, 24\)"),
    (without("shared.weight"), r"shared.weight is missing, for \(64, 24\)"),
    (with_one(MAP, np.zeros((24, 18), np.float32)), r"q.weight is \(24, 18\), for \(18, 24\)"),
    (with_one("encoder.more", np.zeros(2, np.float32)), r"encoder.more is \(2,\), for nothing"),
    (with_one(MAP, np.full((18, 24), np.nan, np.float32)), f"{MAP} has numbers that are not fin"),
    (
        with_one("encoder.embed_tokens.weight", np.zeros((64, 24), np.float32)),
        "encoder.embed_tokens.weight and shared.weight differ, and are one table in T5",
    ),
]


@pytest.mark.parametrize(("change", "sentence"), WRONG)
def test_other_weights_are_told_in_a_sentence(
    folder: Path, kind: Kind, change: Callable[[Arrays], Arrays], sentence: str
) -> None:
    path = folder / "model.safetensors"
    save_file(change(load_file(path)), path)
    with pytest.raises(UserError, match=sentence):
        read(folder, kind)


def test_position_biases_are_where_the_kind_has_them(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "t5", "t5")
    more = with_one(BIAS, np.zeros((32, 3), np.float32))(arrays("t5"))
    save_file(more, folder / "model.safetensors")
    with pytest.raises(UserError, match=rf"{BIAS} is \(32, 3\), for nothing of this name"):
        read(folder, "t5")
    folder = write_folder(tmp_path / "umt5", "umt5")
    save_file(without(BIAS)(arrays("umt5")), folder / "model.safetensors")
    with pytest.raises(UserError, match=rf"{BIAS} is missing, for \(32, 3\)"):
        read(folder, "umt5")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"model_type": "bert"}, "is of model_type 'bert', for 't5'"),
        ({"feed_forward_proj": "relu"}, "feed_forward_proj is 'relu', and only encoders with 'ga"),
        ({"layer_norm_epsilon": 1e-5}, "layer_norm_epsilon is 1e-05, and only encoders with 1e-06"),
        ({"relative_attention_num_buckets": 64}, "num_buckets is 64, and only encoders with 32"),
        ({"d_kv": None}, "d_kv is None, for a whole number"),
        ({"d_kv": 0}, "head_width=0 must be positive"),
    ],
)
def test_other_configs_are_told_in_a_sentence(
    tmp_path: Path, change: dict[str, Any], sentence: str
) -> None:
    folder = write_folder(tmp_path / "t5", "t5")
    (folder / "config.json").write_text(json.dumps({**config("t5"), **change}))
    with pytest.raises(UserError, match=sentence):
        read_config(folder, "t5")


def test_a_config_that_cannot_be_read_is_told_in_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot read .*config.json: No such file"):
        read_config(tmp_path, "t5")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match="config.json is no JSON"):
        read_config(tmp_path, "t5")


def test_the_tokenizer_must_be_there_and_fit(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "t5", "t5")
    sizes = read_config(folder, "t5")
    tokens = read_tokenizer(folder, sizes)
    [row] = tokens.encode(["a red circle"], 20)
    assert tokens.decode(row) == "a red circle"
    assert row[tokens.length("a red circle") - 1] == 1
    (folder / "config.json").write_text(json.dumps({**config("t5"), "vocab_size": 20}))
    with pytest.raises(UserError, match="pieces, and the encoder embeddings of 20: it is of an"):
        read_tokenizer(folder, read_config(folder, "t5"))
    (folder / "spiece.model").write_bytes(b"no model")
    with pytest.raises(UserError, match="spiece.model: not a SentencePiece model"):
        read_tokenizer(folder, sizes)
    (folder / "spiece.model").unlink()
    with pytest.raises(UserError, match="no spiece.model and no tokenizer.json: name the folder"):
        read_tokenizer(folder, sizes)
