"""A 3-D PatchGAN: a score for every patch of a clip, high where it looks real."""

import dataclasses
import itertools
import math

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from sora_jax.config import ConfigError
from sora_jax.nn.convolution import convolve_pictures
from sora_jax.nn.layers import RMSNorm

KERNEL = (3, 4, 4)  # frames, pixels down and across
SLOPE = 0.2  # of what is below zero


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """`layers` halve the sides, and all but the first the frames; widths double up to 8 times."""

    width: int = 64
    layers: int = 3

    def __post_init__(self) -> None:
        if self.width < 1 or self.layers < 1:
            raise ConfigError(
                f"discriminator: width={self.width} and layers={self.layers} must be positive"
            )


class PatchConv(nnx.Module):
    """Convolution over time and space that looks both ways, at every so many frames and cells as
    `strides` says. Zeros stand around the clip.

    It is a sum over the kernel's frames of convolutions of pictures, whose cells were folded where
    every second is wanted: neither these nor their gradients step over cells, which on CPU takes
    many times as long.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        strides: tuple[int, int],
        *,
        rngs: nnx.Rngs,
        use_bias: bool = True,
    ):
        self.strides = strides
        shape = (*KERNEL, inputs, outputs)
        kernel = jax.random.normal(rngs.params(), shape) / math.sqrt(math.prod(shape[:4]))
        self.kernel = nnx.Param(kernel, axes=(None, None, None, "embed", "mlp"))
        self.bias = nnx.Param(jnp.zeros(outputs), axes=("mlp",)) if use_bias else None

    def __call__(self, x: Float[Array, "b t h w i"]) -> Float[Array, "b s g v o"]:
        (every, side), kernel = self.strides, self.kernel[...].astype(x.dtype)
        last = (x.shape[1] - 1) // every * every + 1
        x = jnp.pad(x, ((0, 0), (1, 1), (2, 2), (2, 2), (0, 0)))
        height, width = (size // side * side for size in x.shape[2:4])
        x = x[:, :, :height, :width]  # a last odd row is under no kernel
        sides = {"i": side, "j": side}
        x = rearrange(x, "b t (h i) (w j) c -> b t h w (i j c)", **sides)
        kernel = rearrange(kernel, "f (y i) (x j) c o -> f y x (i j c) o", **sides)
        parts = [
            convolve_pictures(x[:, frame : frame + last : every], of_frame, padding=(0, 0))
            for frame, of_frame in enumerate(kernel)
        ]
        y = sum(parts[1:], parts[0])
        return y if self.bias is None else y + self.bias[...].astype(x.dtype)


class Discriminator(nnx.Module):
    """PatchGAN (arXiv:1611.07004, 3.2.2) with kernels over time too. An image is a clip of one
    frame. Channels alone are normalised, so no clip of a batch sees another."""

    def __init__(self, config: DiscriminatorConfig, *, rngs: nnx.Rngs):
        widths = [config.width * min(2**layer, 8) for layer in range(config.layers)]
        self.first = PatchConv(3, widths[0], (1, 2), rngs=rngs)
        pairs = itertools.pairwise(widths)
        self.convs = nnx.List([PatchConv(*pair, (2, 2), rngs=rngs) for pair in pairs])
        self.norms = nnx.List([RMSNorm(outputs) for outputs in widths[1:]])
        # Without a bias: under a hinge its gradient is a share of the real less as many of the
        # others, which is 0 as long as none is told apart, and Adam would follow its rounding.
        self.last = PatchConv(widths[-1], 1, (1, 1), rngs=rngs, use_bias=False)

    def __call__(self, video: Float[Array, "b t h w 3"]) -> Float[Array, "b s g v"]:
        """Scores of patches of clips in [-1, 1], in float32."""
        x = jax.nn.leaky_relu(self.first(video), SLOPE)
        for conv, norm in zip(self.convs, self.norms, strict=True):
            x = jax.nn.leaky_relu(norm(conv(x)), SLOPE)
        scores: Array = self.last(x)[..., 0].astype(jnp.float32)
        return scores
