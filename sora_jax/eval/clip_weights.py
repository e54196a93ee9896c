"""Weights of CLIP from a folder that the user gives, laid out as Hugging Face stores them.

    config.json, model.safetensors, tokenizer.json

as of openai/clip-vit-base-patch32 and of OpenCLIP's models in that form (laion/CLIP-ViT-...).
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tokenizers import Tokenizer

from sora_jax.errors import UserError
from sora_jax.eval.clip_model import (
    ACTIVATIONS,
    CLIP,
    CLIPConfig,
    TowerConfig,
    by_row_and_whole,
    stacked,
    weight_shapes,
)
from sora_jax.weights.safetensors_files import read_arrays

CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE = "config.json", "model.safetensors", "tokenizer.json"

# What config.json leaves out is as the class CLIPConfig of the library `transformers` has it.
SHARED: dict[str, Any] = {
    "num_hidden_layers": 12,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
DEFAULTS: dict[str, dict[str, Any]] = {
    "vision": SHARED
    | {
        "hidden_size": 768,
        "intermediate_size": 3072,
        "num_attention_heads": 12,
        "image_size": 224,
        "patch_size": 32,
    },
    "text": SHARED
    | {
        "hidden_size": 512,
        "intermediate_size": 2048,
        "num_attention_heads": 8,
        "vocab_size": 49408,
        "max_position_embeddings": 77,
        "eos_token_id": 49407,
    },
}
DEFAULT_PROJECTION = 512
# Configs written before the library had the real token say 2, and mean the largest id.
END_OF_OLD_CONFIGS = 2
UNUSED = ("logit_scale", ".position_ids")  # how names end of arrays that features do not need


def read_clip(directory: Path) -> CLIP:
    """The CLIP of a folder.

    It is named clip-<sha256>, by 12 digits of the hash of its three files one after the other:
    `cat config.json model.safetensors tokenizer.json | sha256sum`. All three change scores, and a
    name in config.json is that of what the weights were trained from, not of the weights.

    Raises:
        UserError: a file is missing or damaged, the model is no CLIP, or the files do not fit.
    """
    config_file, weights_file, tokenizer_file = (
        directory / name for name in (CONFIG_FILE, WEIGHTS_FILE, TOKENIZER_FILE)
    )
    sha256 = hashlib.sha256()
    for file in (config_file, weights_file, tokenizer_file):
        _add_to_hash(file, sha256)
    config = read_config(config_file)
    weights = read_weights(weights_file, weight_shapes(config))
    arrays = jax.device_put(stacked(weights, config), by_row_and_whole()[1])
    tokens = read_tokenizer(tokenizer_file, config)
    return CLIP(f"clip-{sha256.hexdigest()[:12]}", directory, config, arrays, tokens)


def _add_to_hash(path: Path, sha256: Any) -> None:
    try:
        with path.open("rb") as file:
            while content := file.read(1 << 24):
                sha256.update(content)
    except OSError as error:
        raise UserError(
            f"cannot read {path}: {error.strerror}; a folder of CLIP has {CONFIG_FILE}, "
            f"{WEIGHTS_FILE} and {TOKENIZER_FILE}"
        ) from error


def read_config(path: Path) -> CLIPConfig:
    """The config in a config.json.

    Raises:
        UserError: it is no JSON, of another model than CLIP, or has a value that CLIP cannot have.
    """
    try:
        config = json.loads(path.read_bytes())
    except ValueError as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    kind = config.get("model_type") if isinstance(config, dict) else None
    if kind != "clip":
        raise UserError(
            f"{path} is of a model of type {kind!r}: CLIPScore needs one of type 'clip'"
        )
    vision, text = (_Section(path, config, name) for name in ("vision", "text"))
    side, patch = vision.whole("image_size"), vision.whole("patch_size")
    if side % patch:
        raise UserError(f"{path}: image_size {side} is no multiple of patch_size {patch}")
    end = text.whole("eos_token_id")
    return CLIPConfig(
        vision=vision.tower(),
        text=text.tower(),
        side=side,
        patch=patch,
        vocabulary=text.whole("vocab_size"),
        context=text.whole("max_position_embeddings"),
        end=None if end == END_OF_OLD_CONFIGS else end,
        projection=_whole(path, "projection_dim", config.get("projection_dim", DEFAULT_PROJECTION)),
    )


class _Section:
    """The part of a config.json about one tower. Of old files a part `..._config_dict` counts."""

    def __init__(self, path: Path, config: Mapping[str, Any], name: str):
        key = f"{name}_config"
        given = config.get(f"{key}_dict") or config.get(key) or {}
        self._path, self._key, self._values = path, key, DEFAULTS[name] | given

    def whole(self, name: str) -> int:
        return _whole(self._path, f"{self._key}.{name}", self._values[name])

    def tower(self) -> TowerConfig:
        activation = self._values["hidden_act"]
        if activation not in ACTIVATIONS:
            raise UserError(
                f"{self._path}: {self._key}.hidden_act is {activation!r}, and CLIP has "
                f"{' or '.join(ACTIVATIONS)}"
            )
        width, heads = self.whole("hidden_size"), self.whole("num_attention_heads")
        if width % heads:
            raise UserError(
                f"{self._path}: {self._key}.hidden_size {width} is for no {heads} heads"
            )
        return TowerConfig(
            width=width,
            depth=self.whole("num_hidden_layers"),
            heads=heads,
            mlp_width=self.whole("intermediate_size"),
            activation=activation,
            epsilon=float(self._values["layer_norm_eps"]),
        )


def _whole(path: Path, name: str, value: Any) -> int:
    if type(value) is not int or value < 1:
        raise UserError(f"{path}: {name} is {value!r}, and should be a whole number above 0")
    return value


def read_weights(path: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """The arrays of these shapes in a file of safetensors; errors as `read_arrays`."""
    return dict(read_arrays(path, shapes, lambda name: name.endswith(UNUSED)))


def read_tokenizer(path: Path, config: CLIPConfig) -> Callable[[str], list[int]]:
    """Ids of a text by a tokenizer.json, cut to the context with the end token kept.

    Raises:
        UserError: it is no tokenizer, or does not put CLIP's end token last.
    """
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # which is all that the library raises
        raise UserError(f"{path} is no tokenizer: {error}") from error
    tokenizer.no_padding()
    tokenizer.enable_truncation(config.context)

    def tokens(text: str) -> list[int]:
        return list(tokenizer.encode(text).ids)

    ids = tokens("a")
    end = max(ids, default=None) if config.end is None else config.end
    if not ids or ids[-1] != end or max(ids) >= config.vocabulary:
        raise UserError(
            f"{path} does not fit {CONFIG_FILE} beside it: 'a' is {ids}, and should end with the "
            f"token {end} of {config.vocabulary}"
        )
    return tokens
