"""Layers of the Wan 2.1 autoencoder: each maps (x, state) -> (y, state), as those of vae.py do.

The rule of time is the one of every layer here: the first frame of a clip stands alone, and is
folded with no other; after it, 2 frames fold into 1.
"""

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from sora_jax.models.vae import Recomputable, State
from sora_jax.nn.blockwise import attend_blockwise
from sora_jax.nn.convolution import convolve_causally, convolve_pictures, convolve_upsampled
from sora_jax.nn.layers import Linear


class ChannelNorm(nnx.Module):
    """x / |x| * sqrt(channels) * scale, of the numbers of each cell; |x| is at least 1e-12."""

    def __init__(self, width: int):
        self.scale = nnx.Param(jnp.ones(width), axes=(None,))

    def __call__(self, x: Float[Array, "*batch c"]) -> Float[Array, "*batch c"]:
        x32 = x.astype(jnp.float32)
        squared = jnp.sum(jnp.square(x32), -1, keepdims=True)
        # Under the root, for a gradient at zero.
        y = x32 * (jax.lax.rsqrt(jnp.maximum(squared, 1e-24)) * x.shape[-1] ** 0.5)
        return (y * self.scale[...]).astype(x.dtype)


class Convolution(nnx.Module):
    """Kernel and bias of a convolution of `frames` x 3 x 3 cells; of pictures if `frames` is 0."""

    def __init__(self, inputs: int, outputs: int, frames: int, *, rngs: nnx.Rngs):
        self.past = max(frames - 1, 0)
        shape = (*((frames,) if frames else ()), 3, 3, inputs, outputs)
        deviation = (max(frames, 1) * 9 * inputs) ** -0.5
        kernel = jax.random.truncated_normal(rngs.params(), -2.0, 2.0, shape)
        axes = (*(None,) * (len(shape) - 2), "embed", "mlp")
        self.kernel = nnx.Param(deviation * kernel, axes=axes)
        self.bias = nnx.Param(jnp.zeros(outputs), axes=("mlp",))

    def in_dtype_of(self, x: Array) -> tuple[Array, Array]:
        return self.kernel[...].astype(x.dtype), self.bias[...].astype(x.dtype)


class CausalConv(Convolution):
    """3 x 3 x 3 cells of the present frame and the two before it. Its state is the last two inputs:
    zeros at the start of a clip."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        super().__init__(inputs, outputs, 3, rngs=rngs)

    def __call__(self, x: Float[Array, "b t h w i"], state: State) -> tuple[Array, State]:
        kernel, bias = self.in_dtype_of(x)
        y = convolve_causally(x, kernel, state) + bias
        before = jnp.zeros_like(x[:, :1]).repeat(self.past, 1) if state is None else state
        return y, jnp.concatenate([before, x[:, -self.past :]], 1)[:, -self.past :]


class ResidualBlock(Recomputable):
    """shortcut(x) + conv(silu(norm(conv(silu(norm(x))))))."""

    def __init__(self, inputs: int, outputs: int, recompute: bool, *, rngs: nnx.Rngs):
        self.recompute = recompute
        self.first_norm, self.second_norm = ChannelNorm(inputs), ChannelNorm(outputs)
        self.first = CausalConv(inputs, outputs, rngs=rngs)
        self.second = CausalConv(outputs, outputs, rngs=rngs)
        same = inputs == outputs
        self.shortcut = None if same else Linear(inputs, outputs, ("embed", "mlp"), rngs=rngs)

    def _apply(self, x: Array, state: State) -> tuple[Array, State]:
        first, second = (None, None) if state is None else state
        y, first = self.first(jax.nn.silu(self.first_norm(x)), first)
        y, second = self.second(jax.nn.silu(self.second_norm(y)), second)
        return (x if self.shortcut is None else self.shortcut(x)) + y, (first, second)


class PictureAttention(nnx.Module):
    """x + attention among the cells of each frame, with one head."""

    def __init__(self, width: int, *, rngs: nnx.Rngs):
        self.norm = ChannelNorm(width)
        self.query_key_value = Linear(width, 3 * width, ("embed", "heads"), rngs=rngs)
        self.out = Linear(width, width, ("heads", "embed"), rngs=rngs)

    def __call__(self, x: Float[Array, "b t h w c"], state: State) -> tuple[Array, State]:
        b, _, h, w, _ = x.shape
        cells = rearrange(self.query_key_value(self.norm(x)), "b t h w c -> (b t) (h w) 1 c")
        query, key, value = jnp.split(cells, 3, -1)
        together = jnp.ones(cells.shape[:2], jnp.int32)
        y: Any = attend_blockwise(query, key, value, together, together, name="picture_attention")
        y = rearrange(y, "(b t) (h w) 1 c -> b t h w c", b=b, h=h, w=w)
        return x + self.out(y), ()


class Downsample(nnx.Module):
    """Halves pictures and, if `temporal`, the frames after the first. Its state is then the last
    halved picture."""

    def __init__(self, width: int, temporal: bool, *, rngs: nnx.Rngs):
        self.pictures = Convolution(width, width, 0, rngs=rngs)
        self.frames = _over_three_frames(width, width, rngs) if temporal else None

    def __call__(self, x: Float[Array, "b t h w c"], state: State) -> tuple[Array, State]:
        kernel, bias = self.pictures.in_dtype_of(x)
        x = convolve_pictures(x, kernel, stride=2, padding=(0, 1)) + bias
        if self.frames is None:
            return x, ()
        after = x[:, -1:]
        if state is None:
            alone, rest = x[:, :1], x
        else:
            alone, rest = x[:, :0], jnp.concatenate([state, x], 1)
        pairs = (rest.shape[1] - 1) // 2
        if not pairs:
            return alone, after
        seen = [rest[:, frame : frame + 2 * pairs : 2] for frame in range(3)]
        return jnp.concatenate([alone, self.frames(jnp.concatenate(seen, -1))], 1), after


class Upsample(nnx.Module):
    """Doubles pictures, halving channels, and before that, if `temporal`, the frames after the
    first, which learns of no other and of which no other learns. Its state is then the last two
    frames that it had before: zeros where there were none."""

    def __init__(self, width: int, temporal: bool, *, rngs: nnx.Rngs):
        self.frames = _over_three_frames(width, 2 * width, rngs) if temporal else None
        self.pictures = Convolution(width, width // 2, 0, rngs=rngs)

    def __call__(self, x: Float[Array, "b t h w c"], state: State) -> tuple[Array, State]:
        after: State = ()
        if self.frames is not None:
            x, after = self._doubled(self.frames, x, state)
        kernel, bias = self.pictures.in_dtype_of(x)
        return convolve_upsampled(x, kernel) + bias, after

    def _doubled(self, frames: Linear, x: Array, state: State) -> tuple[Array, State]:
        alone, rest = (x[:, :1], x[:, 1:]) if state is None else (x[:, :0], x)
        before = jnp.zeros_like(x[:, :1]).repeat(2, 1) if state is None else state
        seen = jnp.concatenate([before, rest], 1)
        count = rest.shape[1]
        if not count:
            return alone, seen
        cells = jnp.concatenate([seen[:, frame : frame + count] for frame in range(3)], -1)
        pairs = rearrange(frames(cells), "b t h w (p c) -> b (t p) h w c", p=2)
        return jnp.concatenate([alone, pairs], 1), seen[:, count:]


class Head(nnx.Module):
    """conv(silu(norm(x))): the last of the encoder and of the decoder."""

    def __init__(self, inputs: int, outputs: int, *, rngs: nnx.Rngs):
        self.norm = ChannelNorm(inputs)
        self.convolution = CausalConv(inputs, outputs, rngs=rngs)

    def __call__(self, x: Float[Array, "b t h w i"], state: State) -> tuple[Array, State]:
        return self.convolution(jax.nn.silu(self.norm(x)), state)


def _over_three_frames(inputs: int, outputs: int, rngs: nnx.Rngs) -> Linear:
    """A convolution over time alone, as a linear map of the channels of three frames."""
    return Linear(3 * inputs, outputs, ("embed", "mlp"), rngs=rngs)
