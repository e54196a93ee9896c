"""Weights of a small Wan 2.1 autoencoder, made by a fixed rule, as diffusers and Wan lay them.

Needs neither JAX nor the package, so that other implementations can be given the same.
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

CHANNELS, WIDTH = 3, 4
MULTIPLIERS, HALVE_FRAMES, BLOCKS = (1, 2, 2, 3), (False, True, True), 1
WIDTHS = [WIDTH * multiplier for multiplier in MULTIPLIERS]
Shapes = dict[str, tuple[int, ...]]
MEAN, DEVIATION = [0.25, -0.5, 1.0], [2.0, 1.5, 0.75]
CONFIG: dict[str, Any] = {
    "_class_name": "AutoencoderKLWan",
    "_diffusers_version": "0.33.0.dev0",
    "attn_scales": [],
    "base_dim": WIDTH,
    "dim_mult": list(MULTIPLIERS),
    "dropout": 0.0,
    "latents_mean": MEAN,
    "latents_std": DEVIATION,
    "num_res_blocks": BLOCKS,
    "temperal_downsample": list(HALVE_FRAMES),
    "z_dim": CHANNELS,
}


def write_folder(folder: Path, arrays: dict[str, np.ndarray] | None = None) -> Path:
    """Writes the two files of diffusers' layout; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    save_file(
        weights() if arrays is None else arrays, folder / "diffusion_pytorch_model.safetensors"
    )
    return folder


def weights() -> dict[str, np.ndarray]:
    """Array number n by name is normal noise of NumPy's legacy generator seeded n, which is the
    same in all its versions, a little more than what keeps numbers as large as they are; scales of
    normalisations are around 1."""
    found = {}
    for number, (name, shape) in enumerate(sorted(shapes().items())):
        inputs = int(np.prod(shape[1:])) if name.endswith("weight") else 4
        noise = np.random.RandomState(number).standard_normal(shape) * (2 / inputs) ** 0.5
        is_scale = name.endswith("gamma")
        found[name] = np.asarray(0.3 * noise + 1 if is_scale else noise, np.float32)
    return found


def video(frames: int) -> np.ndarray:
    """Two clips in [-1, 1], float32 [2, frames, 16, 24, 3]: waves that move."""
    t, y, x, c = np.meshgrid(
        np.arange(frames), np.arange(16) / 16, np.arange(24) / 24, np.arange(3), indexing="ij"
    )
    clips = [np.sin(5 * k * x + 4 * c * y + 0.7 * t * (c + 1)) for k in (1, 2)]
    return np.stack(clips).astype(np.float32)


def latents(frames: int) -> np.ndarray:
    """The first of two clips, float32 [2, frames, 2, 3, CHANNELS]."""
    whole = np.random.RandomState(7).standard_normal((2, 5, 2, 3, CHANNELS))
    return whole[:, :frames].astype(np.float32)


def places(pixels: np.ndarray) -> np.ndarray:
    """Some pixels of every frame, from its edges and from within."""
    return pixels[:, :, ::5, ::7]


def shapes() -> dict[str, tuple[int, ...]]:
    """Written out from the published files, not from the code that is tested."""
    found = _encoder() | _decoder()
    _convolution(found, "quant_conv", 2 * CHANNELS, 2 * CHANNELS, 1, 1, 1)
    _convolution(found, "post_quant_conv", CHANNELS, CHANNELS, 1, 1, 1)
    return found


def _encoder() -> Shapes:
    found: Shapes = {}
    _convolution(found, "encoder.conv_in", WIDTH, 3, 3, 3, 3)
    inputs, number = WIDTH, 0
    for level, width in enumerate(WIDTHS):
        for _ in range(BLOCKS):
            _block(found, f"encoder.down_blocks.{number}", inputs, width)
            inputs, number = width, number + 1
        if level < len(HALVE_FRAMES):
            name = f"encoder.down_blocks.{number}"
            _convolution(found, f"{name}.resample.1", width, width, 3, 3)
            if HALVE_FRAMES[level]:
                _convolution(found, f"{name}.time_conv", width, width, 3, 1, 1)
            number += 1
    _middle(found, "encoder.mid_block", inputs)
    found["encoder.norm_out.gamma"] = (inputs, 1, 1, 1)
    _convolution(found, "encoder.conv_out", 2 * CHANNELS, inputs, 3, 3, 3)
    return found


def _decoder() -> Shapes:
    found: Shapes = {}
    inputs = WIDTHS[-1]
    _convolution(found, "decoder.conv_in", inputs, CHANNELS, 3, 3, 3)
    _middle(found, "decoder.mid_block", inputs)
    for level, width in enumerate(reversed(WIDTHS)):
        name = f"decoder.up_blocks.{level}"
        for number in range(BLOCKS + 1):
            _block(found, f"{name}.resnets.{number}", inputs, width)
            inputs = width
        if level < len(HALVE_FRAMES):
            inputs = width // 2
            _convolution(found, f"{name}.upsamplers.0.resample.1", inputs, width, 3, 3)
            if HALVE_FRAMES[::-1][level]:
                _convolution(found, f"{name}.upsamplers.0.time_conv", 2 * width, width, 3, 1, 1)
    found["decoder.norm_out.gamma"] = (inputs, 1, 1, 1)
    _convolution(found, "decoder.conv_out", 3, inputs, 3, 3, 3)
    return found


def _convolution(found: Shapes, name: str, outputs: int, inputs: int, *cells: int) -> None:
    found[f"{name}.weight"], found[f"{name}.bias"] = (outputs, inputs, *cells), (outputs,)


def _block(found: Shapes, name: str, inputs: int, outputs: int) -> None:
    found[f"{name}.norm1.gamma"] = (inputs, 1, 1, 1)
    _convolution(found, f"{name}.conv1", outputs, inputs, 3, 3, 3)
    found[f"{name}.norm2.gamma"] = (outputs, 1, 1, 1)
    _convolution(found, f"{name}.conv2", outputs, outputs, 3, 3, 3)
    if inputs != outputs:
        _convolution(found, f"{name}.conv_shortcut", outputs, inputs, 1, 1, 1)


def _middle(found: Shapes, name: str, width: int) -> None:
    _block(found, f"{name}.resnets.0", width, width)
    found[f"{name}.attentions.0.norm.gamma"] = (width, 1, 1)
    _convolution(found, f"{name}.attentions.0.to_qkv", 3 * width, width, 1, 1)
    _convolution(found, f"{name}.attentions.0.proj", width, width, 1, 1)
    _block(found, f"{name}.resnets.1", width, width)


def as_published(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same by the names of Wan's own file."""
    return {published_name(name): array for name, array in arrays.items()}


def published_name(name: str) -> str:
    whole = {"post_quant_conv": "conv2", "quant_conv": "conv1"}
    part, _, rest = name.partition(".")
    if part in whole:
        return f"{whole[part]}.{rest}"
    for theirs, of_wan in (
        ("norm1", "residual.0"),
        ("conv1", "residual.2"),
        ("norm2", "residual.3"),
        ("conv2", "residual.6"),
        ("conv_shortcut", "shortcut"),
        ("mid_block.resnets.0", "middle.0"),
        ("mid_block.attentions.0", "middle.1"),
        ("mid_block.resnets.1", "middle.2"),
        ("down_blocks", "downsamples"),
        ("norm_out", "head.0"),
        ("conv_out", "head.2"),
        ("conv_in", "conv1"),
    ):
        rest = rest.replace(theirs, of_wan)
    if rest.startswith("up_blocks"):
        _, level, kind, number, *end = rest.split(".")
        place = BLOCKS + 1 if kind == "upsamplers" else int(number)
        rest = ".".join(["upsamples", str(int(level) * (BLOCKS + 2) + place), *end])
    return f"{part}.{rest}"
