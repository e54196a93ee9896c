"""The autoencoder of Wan 2.1 (arXiv:2503.20314, 4.1), of whose weights training may start.

A sibling of vae.py with its interface, laid out so that published weights mean what they meant:
a clip coded at once, or in chunks with a state handed on, has the numbers that Wan's own code has
frame group by frame group.
"""

import dataclasses
import itertools
import math
from typing import Any, Literal

from flax import nnx
from jaxtyping import Array, Float

from sora_jax.config import ConfigError
from sora_jax.models.vae import VAE
from sora_jax.models.wan_layers import (
    CausalConv,
    Downsample,
    Head,
    PictureAttention,
    ResidualBlock,
    Upsample,
)
from sora_jax.nn.layers import Linear


@dataclasses.dataclass(frozen=True)
class WanVAEConfig:
    """Levels from pixels to latents: level i has `blocks` residual blocks of `width` *
    `multipliers[i]` channels, and pictures are halved between levels, frames where `halve_frames`
    says so. The decoder mirrors it with one block more a level. Defaults are the published ones.

    `compute` and `recompute` as in VAEConfig.
    """

    channels: int = 16
    width: int = 96
    multipliers: tuple[int, ...] = (1, 2, 4, 4)
    halve_frames: tuple[bool, ...] = (False, True, True)
    blocks: int = 2
    compute: Literal["float32", "bfloat16"] = "float32"
    recompute: bool = False

    def __post_init__(self) -> None:
        if min(self.channels, self.width, self.blocks, *self.multipliers) < 1:
            raise ConfigError("vae: channels, width, multipliers and blocks must be positive")
        if len(self.halve_frames) != len(self.multipliers) - 1:
            raise ConfigError(
                f"vae: {len(self.multipliers)} levels but {len(self.halve_frames)} times "
                "halve_frames; give one between each two levels"
            )
        if any(width % 2 for width in self.widths[1:]):
            raise ConfigError(
                f"vae: widths {', '.join(map(str, self.widths))} of levels after the first are "
                "halved, and must be even"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        return tuple(self.width * multiplier for multiplier in self.multipliers)

    @property
    def temporal(self) -> int:
        """Pixel frames per latent frame, after the first."""
        return math.prod(2 if halved else 1 for halved in self.halve_frames)

    @property
    def spatial(self) -> int:
        """Pixels per latent cell, on a side."""
        return 2 ** len(self.halve_frames)

    def trained(self) -> "WanVAEConfig":
        """This config with what does not decide the numbers at its default."""
        return dataclasses.replace(self, recompute=False)


class WanVAE(VAE):
    """A VAE of other modules."""

    log_variances = (-30.0, 20.0)

    def __init__(self, config: WanVAEConfig, *, rngs: nnx.Rngs):
        both: Any = config  # who uses a VAE asks its config for what both kinds have
        self.config = both
        self.encoder = nnx.List(_encoder(config, rngs))
        channels, moments = config.channels, 2 * config.channels
        self.to_moments = Linear(moments, moments, (None, None), rngs=rngs)
        self.from_latents = Linear(channels, channels, (None, None), rngs=rngs)
        self.decoder = nnx.List(_decoder(config, rngs))

    def last_kernel(self) -> Float[Array, "i o"]:
        """As that of a VAE; of all cells under the last convolution."""
        last: Any = self.decoder[-1]
        kernel: Array = last.convolution.kernel[...]
        return kernel.reshape(-1, kernel.shape[-1])


def _encoder(config: WanVAEConfig, rngs: nnx.Rngs) -> list[nnx.Module]:
    widths = config.widths
    modules: list[nnx.Module] = [CausalConv(3, config.width, rngs=rngs)]
    inputs = config.width
    for width, halved in itertools.zip_longest(widths, config.halve_frames):
        for _ in range(config.blocks):
            modules.append(ResidualBlock(inputs, width, config.recompute, rngs=rngs))
            inputs = width
        if halved is not None:  # there is a level behind this one
            modules.append(Downsample(width, halved, rngs=rngs))
    modules += _middle(inputs, config, rngs)
    return [*modules, Head(inputs, 2 * config.channels, rngs=rngs)]


def _decoder(config: WanVAEConfig, rngs: nnx.Rngs) -> list[nnx.Module]:
    inputs = config.widths[-1]
    modules: list[nnx.Module] = [CausalConv(config.channels, inputs, rngs=rngs)]
    modules += _middle(inputs, config, rngs)
    for width, doubled in itertools.zip_longest(config.widths[::-1], config.halve_frames[::-1]):
        for _ in range(config.blocks + 1):
            modules.append(ResidualBlock(inputs, width, config.recompute, rngs=rngs))
            inputs = width
        if doubled is not None:
            modules.append(Upsample(width, doubled, rngs=rngs))
            inputs = width // 2
    return [*modules, Head(inputs, 3, rngs=rngs)]


def _middle(width: int, config: WanVAEConfig, rngs: nnx.Rngs) -> list[nnx.Module]:
    first, last = (ResidualBlock(width, width, config.recompute, rngs=rngs) for _ in range(2))
    return [first, PictureAttention(width, rngs=rngs), last]
