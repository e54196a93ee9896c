"""Weights of the Wan 2.1 autoencoder, as the library diffusers lays them or as Wan published them.

    config.json, diffusion_pytorch_model.safetensors    folder vae/ of Wan2.1-T2V-1.3B-Diffusers
    Wan2.1_VAE.pth                                      of Wan2.1-T2V-1.3B and the other models

The two have the same arrays by other names.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sora_jax.errors import ConfigError, UserError
from sora_jax.models.latents import LatentStatistics
from sora_jax.models.wan_layers import (
    CausalConv,
    ChannelNorm,
    Downsample,
    Head,
    PictureAttention,
    ResidualBlock,
    Upsample,
)
from sora_jax.models.wan_vae import WanVAE, WanVAEConfig
from sora_jax.weights.safetensors_files import read_arrays
from sora_jax.weights.torch_files import read_checked

CONFIG_FILE, WEIGHTS_FILE = "config.json", "diffusion_pytorch_model.safetensors"
PUBLISHED_FILE = "Wan2.1_VAE.pth"
# Fields of WanVAEConfig as config.json calls them, and what must be as it says by default.
FIELDS = {
    "z_dim": "channels",
    "base_dim": "width",
    "dim_mult": "multipliers",
    "temperal_downsample": "halve_frames",
    "num_res_blocks": "blocks",
}
FIXED: dict[str, Any] = {
    "_class_name": "AutoencoderKLWan",
    "decoder_base_dim": None,
    "attn_scales": [],
    "is_residual": False,
    "in_channels": 3,
    "out_channels": 3,
    "patch_size": None,
}
# Of the published weights: what the .pth does not say, and a config.json may leave out.
MEAN = [-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508]
MEAN += [0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921]
DEVIATION = [2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743]
DEVIATION += [3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160]


@dataclasses.dataclass(frozen=True)
class _Layout:
    """What a file calls modules and their parts."""

    first: str
    levels: tuple[str, str]  # of the encoder and the decoder
    middle: tuple[str, str, str]
    block: tuple[str, str, str, str, str]  # norm, convolution, norm, convolution, shortcut
    head: tuple[str, str]  # norm, convolution
    to_moments: str
    from_latents: str
    by_level: bool  # whether the decoder's blocks are numbered within their levels


DIFFUSERS = _Layout(
    first="conv_in",
    levels=("down_blocks", "up_blocks"),
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    block=("norm1", "conv1", "norm2", "conv2", "conv_shortcut"),
    head=("norm_out", "conv_out"),
    to_moments="quant_conv",
    from_latents="post_quant_conv",
    by_level=True,
)
PUBLISHED = _Layout(
    first="conv1",
    levels=("downsamples", "upsamples"),
    middle=("middle.0", "middle.1", "middle.2"),
    block=("residual.0", "residual.2", "residual.3", "residual.6", "shortcut"),
    head=("head.0", "head.2"),
    to_moments="conv1",
    from_latents="conv2",
    by_level=False,
)


def read_wan_vae(folder: Path) -> tuple[WanVAE, LatentStatistics]:
    """The autoencoder of a folder, in float32, and what its latents are normalised by.

    Raises:
        UserError: a file is missing or damaged, or of another model; an array is missing, of
            another shape or one too many; or it has a number that is not finite.
    """
    values: dict[str, Any] = {}
    file, layout = folder / PUBLISHED_FILE, PUBLISHED
    if (folder / CONFIG_FILE).exists():
        values = _read_json(folder / CONFIG_FILE)
        file, layout = folder / WEIGHTS_FILE, DIFFUSERS
    elif not file.exists():
        raise UserError(
            f"{folder} has neither {CONFIG_FILE}, as the folder vae of Wan2.1's models for "
            f"diffusers, nor {PUBLISHED_FILE}: name the folder that has one of them"
        )
    config = _config(folder / CONFIG_FILE, values)
    statistics = _statistics(folder / CONFIG_FILE, values, config)
    vae: WanVAE = jax.eval_shape(lambda: WanVAE(config, rngs=nnx.Rngs(0)))
    places = {name: (parameter, shape) for name, parameter, shape in _places(vae, layout)}
    shapes = {name: shape for name, (_, shape) in places.items()}
    arrays = read_arrays(file, shapes) if layout is DIFFUSERS else read_checked(file, shapes)
    for name, array in arrays:
        parameter, _ = places[name]
        parameter.set_value(jnp.asarray(_as_ours(array, parameter), jnp.float32))
    return vae, statistics


def _read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is no JSON: {error}") from error
    if not isinstance(values, dict):
        raise UserError(f"{path} is no config of an autoencoder: it is a {type(values).__name__}")
    return values


def _config(path: Path, values: Mapping[str, Any]) -> WanVAEConfig:
    """As config.json says, where it says it; else as published."""
    for name, expected in FIXED.items():
        if values.get(name, expected) != expected:
            raise UserError(
                f"{path}: {name} is {values[name]!r}, and should be {expected!r}, as in Wan 2.1"
            )
    kinds: dict[str, Any] = {"multipliers": int, "halve_frames": bool}
    fields: dict[str, Any] = {}
    for theirs, name in FIELDS.items():
        if theirs not in values:
            continue
        value, kind = values[theirs], kinds.get(name)
        items = value if kind and isinstance(value, list) else [value]
        are_right = all(type(item) is (kind or int) and item >= 0 for item in items)
        if not are_right or bool(kind) != isinstance(value, list):
            raise UserError(f"{path}: {theirs} is {value!r}, as in no autoencoder")
        fields[name] = tuple(value) if kind else value
    try:
        return WanVAEConfig(**fields)
    except ConfigError as error:
        raise UserError(f"{path}: {error}") from error


def _statistics(path: Path, values: Mapping[str, Any], config: WanVAEConfig) -> LatentStatistics:
    found = []
    for name, published in (("latents_mean", MEAN), ("latents_std", DEVIATION)):
        given = values.get(name, published)
        items = given if isinstance(given, list) else []
        are_numbers = all(type(item) in (int, float) for item in items)
        array = np.asarray(items if are_numbers else [], np.float32)
        is_right = array.shape == (config.channels,) and np.isfinite(array).all()
        if not is_right or (name == "latents_std" and array.min() <= 0):
            raise UserError(
                f"{path}: {name} is {given!r}, and should be {config.channels} numbers, one for "
                "each channel of the latents"
            )
        found.append(array)
    return LatentStatistics(*found)


_Place = tuple[str, nnx.Param, tuple[int, ...]]  # name and shape in a file


def _places(vae: WanVAE, layout: _Layout) -> Iterator[_Place]:
    """Every array of a file, and the parameter that it is."""
    for name, module in zip(_encoder_names(vae, layout), vae.encoder, strict=True):
        yield from _of_module(module, f"encoder.{name}", layout)
    for name, module in zip(_decoder_names(vae, layout), vae.decoder, strict=True):
        yield from _of_module(module, f"decoder.{name}", layout)
    yield from _kernel_and_bias(vae.to_moments, layout.to_moments, 1, 1, 1)
    yield from _kernel_and_bias(vae.from_latents, layout.from_latents, 1, 1, 1)


def _encoder_names(vae: WanVAE, layout: _Layout) -> list[str]:
    count = len(vae.encoder) - len(layout.middle) - 2
    return [
        layout.first,
        *(f"{layout.levels[0]}.{number}" for number in range(count)),
        *layout.middle,
        "",
    ]


def _decoder_names(vae: WanVAE, layout: _Layout) -> list[str]:
    names = [layout.first, *layout.middle]
    blocks = vae.config.blocks + 1
    for number in range(len(vae.decoder) - len(names) - 1):
        level, place = divmod(number, blocks + 1)
        if layout.by_level:
            part = f"{level}." + (f"resnets.{place}" if place < blocks else "upsamplers.0")
        else:
            part = f"{number}"
        names.append(f"{layout.levels[1]}.{part}")
    return [*names, ""]


def _of_module(module: Any, name: str, layout: _Layout) -> Iterator[_Place]:
    if isinstance(module, CausalConv):
        yield from _kernel_and_bias(module, name, 3, 3, 3)
    elif isinstance(module, ResidualBlock):
        yield from _scale(module.first_norm, f"{name}.{layout.block[0]}", 3)
        yield from _kernel_and_bias(module.first, f"{name}.{layout.block[1]}", 3, 3, 3)
        yield from _scale(module.second_norm, f"{name}.{layout.block[2]}", 3)
        yield from _kernel_and_bias(module.second, f"{name}.{layout.block[3]}", 3, 3, 3)
        if module.shortcut is not None:
            yield from _kernel_and_bias(module.shortcut, f"{name}.{layout.block[4]}", 1, 1, 1)
    elif isinstance(module, PictureAttention):
        yield from _scale(module.norm, f"{name}.norm", 2)
        yield from _kernel_and_bias(module.query_key_value, f"{name}.to_qkv", 1, 1)
        yield from _kernel_and_bias(module.out, f"{name}.proj", 1, 1)
    elif isinstance(module, (Downsample, Upsample)):
        yield from _kernel_and_bias(module.pictures, f"{name}.resample.1", 3, 3)
        if module.frames is not None:
            yield from _kernel_and_bias(module.frames, f"{name}.time_conv", 3, 1, 1)
    elif isinstance(module, Head):
        norm, convolution = layout.head
        yield from _scale(module.norm, f"{name}{norm}", 3)
        yield from _kernel_and_bias(module.convolution, f"{name}{convolution}", 3, 3, 3)


def _kernel_and_bias(module: Any, name: str, *cells: int) -> Iterator[_Place]:
    """Of a convolution over so many cells; our linear maps are convolutions in the files."""
    outputs = module.bias.get_value().shape[0]
    inputs = module.kernel.get_value().size // (outputs * int(np.prod(cells)))
    yield f"{name}.weight", module.kernel, (outputs, inputs, *cells)
    yield f"{name}.bias", module.bias, (outputs,)


def _scale(module: ChannelNorm, name: str, axes: int) -> Iterator[_Place]:
    width = module.scale.get_value().shape[0]
    yield f"{name}.gamma", module.scale, (width, *(1,) * axes)


def _as_ours(array: np.ndarray, parameter: nnx.Param) -> np.ndarray:
    shape = parameter.get_value().shape
    if len(shape) > 1:  # [outputs, inputs, *cells]
        array = np.moveaxis(array, (1, 0), (-2, -1))
    return array.reshape(shape)
