"""FLOPs of the Wan 2.1 autoencoder, forward. Zeros around a picture and before a clip are passed
over, as XLA counts convolutions, but for those that the maps over three frames multiply."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
from flax import nnx

from sora_jax.models.wan_layers import (
    CausalConv,
    Downsample,
    Head,
    PictureAttention,
    ResidualBlock,
    Upsample,
)
from sora_jax.models.wan_vae import WanVAE, WanVAEConfig

Size = tuple[int, int, int]  # frames, height, width


def wan_flops(config: WanVAEConfig, size: Size) -> tuple[int, int]:
    """(encode, decode) of one clip of so many pixels, which the autoencoder can code."""
    vae = _shapes(config)
    encode, latent_size = _in_turn(vae.encoder, size)
    decode, _ = _in_turn(vae.decoder, latent_size)
    return (
        encode + _linear(vae.to_moments, latent_size),
        decode + _linear(vae.from_latents, latent_size),
    )


def wan_pixel_flops(config: WanVAEConfig, size: Size) -> int:
    """Of the first convolution, which multiplies pixels; the encoder's count has them."""
    return _causal(_shapes(config).encoder[0], size)


def wan_again_flops(config: WanVAEConfig, size: Size) -> int:
    """What the backward pass computes again with `recompute`, as `vae_again_flops` says."""
    vae = _shapes(config)
    again = 0
    for module in [*vae.encoder, *vae.decoder]:
        if isinstance(module, ResidualBlock):
            again += _causal(module.first, size)
        _, size = _through(module, size)
    return again


@functools.lru_cache
def _shapes(config: WanVAEConfig) -> WanVAE:
    vae: WanVAE = jax.eval_shape(lambda: WanVAE(config, rngs=nnx.Rngs(0)))
    return vae


def _in_turn(modules: Iterable[Any], size: Size) -> tuple[int, Size]:
    total = 0
    for module in modules:
        flops, size = _through(module, size)
        total += flops
    return total, size


def _through(module: Any, size: Size) -> tuple[int, Size]:
    """Of a module, and the size that it leaves."""
    frames, height, width = size
    if isinstance(module, CausalConv):
        return _causal(module, size), size
    if isinstance(module, Head):
        return _causal(module.convolution, size), size
    if isinstance(module, ResidualBlock):
        shortcut = 0 if module.shortcut is None else _linear(module.shortcut, size)
        return _causal(module.first, size) + _causal(module.second, size) + shortcut, size
    if isinstance(module, PictureAttention):
        maps = _linear(module.query_key_value, size) + _linear(module.out, size)
        return maps + 4 * frames * (height * width) ** 2 * _sizes(module.out)[1], size
    if isinstance(module, Downsample):
        height, width = height // 2, width // 2
        taps = (3 * height - 1) * (3 * width - 1)  # zeros are behind alone
        flops = 2 * frames * taps * _weights(module.pictures)
        if module.frames is not None:
            frames = (frames - 1) // 2 + 1
            flops += _linear(module.frames, (frames - 1, height, width))
        return flops, (frames, height, width)
    assert isinstance(module, Upsample)
    flops = 0
    if module.frames is not None:
        flops += _linear(module.frames, (frames - 1, height, width))
        frames = 2 * frames - 1
    taps = 2 * (2 * height - 1) * 2 * (2 * width - 1)  # of 2 x 2 kernels for four places
    flops += 2 * frames * taps * _weights(module.pictures)
    return flops, (frames, 2 * height, 2 * width)


def _causal(convolution: Any, size: Size) -> int:
    frames, height, width = size
    pairs_of_frames = sum(min(3, frame) for frame in range(1, frames + 1))
    taps = pairs_of_frames * (3 * height - 2) * (3 * width - 2)
    return 2 * taps * _weights(convolution)


def _linear(linear: Any, size: Size) -> int:
    frames, height, width = size
    inputs, outputs = _sizes(linear)
    return 2 * frames * height * width * inputs * outputs


def _weights(convolution: Any) -> int:
    """Inputs x outputs."""
    inputs, outputs = _sizes(convolution)
    return inputs * outputs


def _sizes(module: Any) -> tuple[int, int]:
    inputs, outputs = module.kernel.get_value().shape[-2:]
    return inputs, outputs
