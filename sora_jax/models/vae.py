"""The causal 3-D video autoencoder: 1 + f*k frames <-> 1 + k latent frames, f = temporal factor.

One path serves whole clips, streams and images. Every module maps (x, state) -> (y, state), where
state None means "the clip starts here"; a stream hands the state on. Nothing looks ahead in time
and nothing is pooled over time or space, so encode(x[:1+f*k]) == encode(x)[:1+k], a streamed clip
equals the whole one, and an image is a clip of one frame.
"""

import dataclasses
import itertools
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, UInt8

from sora_jax.config import ConfigError
from sora_jax.nn.convolution import convolve_causally
from sora_jax.nn.cosines import lowest_frequencies
from sora_jax.nn.layers import Linear, RMSNorm

Convolution = Literal["direct", "matmul"]
State = Any  # None at the start of a clip; afterwards a pytree of the frames that convolutions keep


@dataclasses.dataclass(frozen=True)
class VAEConfig:
    """Stages from pixels to latents: stage i first folds `folds[i]` = (frames, pixels per side)
    into channels, then runs `blocks` residual blocks of `widths[i]`. The decoder mirrors it.

    `shortcuts`: folds after the first also hand on the mean of the numbers they fold, and unfolds
    before the last repeat theirs (arXiv:2410.10733, 3.2): deep stages then learn what is left, and
    what 32 x 32 pixels come down to is found at all.

    `compute`: dtype of activations; parameters, normalisation and moments are float32.

    `convolution`: how it is computed, to the same numbers. "matmul" gathers every kernel's cells
    and multiplies, with up to 27 times the memory of the input: for devices that convolve slowly.

    `recompute`: the backward pass computes the inside of blocks again, also to the same numbers.
    """

    is_implied: ClassVar[bool] = True  # experiments were saved before there was another

    channels: int = 16
    widths: tuple[int, ...] = (128, 256, 512)
    folds: tuple[tuple[int, int], ...] = ((1, 2), (2, 2), (2, 2))
    blocks: int = 2
    shortcuts: bool = False
    compute: Literal["float32", "bfloat16"] = "float32"
    convolution: Convolution = "direct"
    recompute: bool = False

    def __post_init__(self) -> None:
        if len(self.widths) != len(self.folds) or not self.widths:
            raise ConfigError(
                f"vae: {len(self.widths)} widths but {len(self.folds)} folds; give one per stage"
            )
        if self.shortcuts:
            self._check_shortcuts()

    def _check_shortcuts(self) -> None:
        pairs = zip(self.widths, self.widths[1:], self.folds[1:], strict=False)
        for inputs, outputs, (frames, side) in pairs:
            cells = frames * side**2
            # A mean of so many takes in all frames, so that a still clip is handed on as a picture.
            if cells * inputs % (outputs * frames) or cells * inputs < outputs * frames:
                raise ConfigError(
                    f"vae.shortcuts: {cells} cells of width {inputs} do not come down to width "
                    f"{outputs} by means over all {frames} frames: choose widths that divide"
                )

    def trained(self) -> "VAEConfig":
        """This config with what does not decide the numbers at its default."""
        return dataclasses.replace(self, convolution="direct", recompute=False)

    @property
    def temporal(self) -> int:
        """Pixel frames per latent frame, after the first."""
        return math.prod(frames for frames, _ in self.folds)

    @property
    def spatial(self) -> int:
        """Pixels per latent cell, on a side."""
        return math.prod(side for _, side in self.folds)


class CausalConv(nnx.Module):
    """3-D convolution, kernel `frames` x 3 x 3, that sees the present frame and those before it.
    Its state is the last frames - 1 inputs: zeros at the start of a clip."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        frames: int,
        method: Convolution,
        *,
        rngs: nnx.Rngs,
        scale: float = 1,
    ):
        self.past, self.method = frames - 1, method
        shape = (frames, 3, 3, inputs, outputs)
        deviation = scale / math.sqrt(math.prod(shape[:4]))
        kernel = jax.random.truncated_normal(rngs.params(), -2.0, 2.0, shape)
        self.kernel = nnx.Param(deviation * kernel, axes=(None, None, None, "embed", "mlp"))
        self.bias = nnx.Param(jnp.zeros(outputs), axes=("mlp",))

    def __call__(self, x: Float[Array, "b t h w i"], state: State) -> tuple[Array, State]:
        b, _, h, w, c = x.shape
        kernel = self.kernel[...].astype(x.dtype)
        before = jnp.zeros((b, self.past, h, w, c), x.dtype) if state is None else state
        seen = jnp.concatenate([before, x], 1)
        if self.method == "direct":
            y = convolve_causally(x, kernel, state)
        else:
            y = convolve_by_matmul(seen, kernel)
        return y + self.bias[...].astype(x.dtype), seen[:, seen.shape[1] - self.past :]


def convolve_by_matmul(
    x: Float[Array, "b t h w i"], kernel: Float[Array, "f 3 3 i o"]
) -> Float[Array, "b s h w o"]:
    """Convolution with zeros around each frame and none around time, s = t - f + 1, as one matmul
    of the cells under the kernel."""
    frames = kernel.shape[0]
    s, h, w = x.shape[1] - frames + 1, *x.shape[2:4]
    x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
    taps = itertools.product(range(frames), range(3), range(3))
    cells = [x[:, f : f + s, i : i + h, j : j + w] for f, i, j in taps]
    return jnp.concatenate(cells, -1) @ rearrange(kernel, "f y x i o -> (f y x i) o")


class Recomputable(nnx.Module):
    """A block whose inside, `_apply`, the backward pass computes again if `recompute` says so."""

    recompute: bool

    def __call__(self, x: Float[Array, "b t h w c"], state: State) -> tuple[Array, State]:
        apply = type(self)._apply
        after: tuple[Array, State] = (jax.checkpoint(apply) if self.recompute else apply)(
            self, x, state
        )
        return after

    def _apply(self, x: Array, state: State) -> tuple[Array, State]:
        raise NotImplementedError


class ResidualBlock(Recomputable):
    """x + conv(silu(norm(conv(silu(norm(x)))))); only the first convolution spans time. It begins
    as little more than x."""

    def __init__(self, width: int, method: Convolution, recompute: bool, *, rngs: nnx.Rngs):
        self.recompute = recompute
        self.first_norm, self.second_norm = RMSNorm(width), RMSNorm(width)
        self.first = CausalConv(width, width, 3, method, rngs=rngs)
        self.second = CausalConv(width, width, 1, method, rngs=rngs, scale=0.01)

    def _apply(self, x: Array, state: State) -> tuple[Array, State]:
        first, second = (None, None) if state is None else state
        y, first = self.first(jax.nn.silu(self.first_norm(x)), first)
        y, second = self.second(jax.nn.silu(self.second_norm(y)), second)
        return x + y, (first, second)


class Fold(nnx.Module):
    """Folds `frames` x `side` x `side` cells into one by a linear map, and adds their mean where
    there is a shortcut. A clip's first frame folds as one that stood still before it, so that
    1 + f*k frames become 1 + k.

    Without a shortcut the map begins as the lowest frequencies of what it folds, and Unfold's as
    what they show."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        fold: tuple[int, int],
        *,
        shortcut: bool = False,
        rngs: nnx.Rngs,
    ):
        self.fold, self.outputs, self.shortcut = fold, outputs, shortcut
        self.linear = Linear(fold[0] * fold[1] ** 2 * inputs, outputs, ("embed", "mlp"), rngs=rngs)
        if not shortcut:
            self.linear.kernel[...] = lowest_frequencies(inputs, outputs, fold)

    def __call__(self, x: Float[Array, "b t h w i"], state: State) -> tuple[Array, State]:
        before = (self.fold[0] - 1 if state is None else 0, 0)
        x = jnp.pad(x, ((0, 0), before, *((0, 0),) * 3), mode="edge")
        y = self.linear(_folded(x, self.fold, "p i j c"))
        if self.shortcut:
            cells = _folded(x, self.fold, "c i j p")
            y = y + jnp.mean(rearrange(cells, "... (o n) -> ... o n", o=self.outputs), -1)
        return y, ()


class Unfold(nnx.Module):
    """Mirror of Fold: one cell becomes frames x side x side; a clip's first cell one frame only."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        fold: tuple[int, int],
        *,
        shortcut: bool = False,
        rngs: nnx.Rngs,
    ):
        self.fold, self.shortcut = fold, shortcut
        cells = fold[0] * fold[1] ** 2
        self.repeats = cells * outputs // inputs
        self.linear = Linear(inputs, cells * outputs, ("embed", "mlp"), rngs=rngs)
        if not shortcut:
            self.linear.kernel[...] = lowest_frequencies(outputs, inputs, fold).T

    def __call__(self, x: Float[Array, "b t h w i"], state: State) -> tuple[Array, State]:
        y = _unfolded(self.linear(x), self.fold, "p i j c")
        if self.shortcut:
            y = y + _unfolded(jnp.repeat(x, self.repeats, -1), self.fold, "c i j p")
        return (y[:, self.fold[0] - 1 :] if state is None else y), ()


def _folded(x: Array, fold: tuple[int, int], order: str) -> Array:
    """Cells of time and space as channels, in this order."""
    sizes = {"p": fold[0], "i": fold[1], "j": fold[1]}
    return rearrange(x, f"b (t p) (h i) (w j) c -> b t h w ({order})", **sizes)


def _unfolded(x: Array, fold: tuple[int, int], order: str) -> Array:
    sizes = {"p": fold[0], "i": fold[1], "j": fold[1]}
    return rearrange(x, f"b t h w ({order}) -> b (t p) (h i) (w j) c", **sizes)


def _run(modules: Any, x: Array, states: State) -> tuple[Array, State]:
    """x through modules in turn, each with its own state."""
    states = [None] * len(modules) if states is None else states
    after = []
    for module, state in zip(modules, states, strict=True):
        x, state = module(x, state)
        after.append(state)
    return x, after


class VAE(nnx.Module):
    """Encoder to the mean and log-variance of latents, and decoder back to pixels in [-1, 1]."""

    log_variances = (-20.0, 10.0)  # the least and the most

    def __init__(self, config: VAEConfig, *, rngs: nnx.Rngs):
        self.config = config
        encoder: list[nnx.Module] = []
        decoder: list[nnx.Module] = []
        inputs = 3

        def blocks(width: int) -> list[nnx.Module]:
            how = (config.convolution, config.recompute)
            return [ResidualBlock(width, *how, rngs=rngs) for _ in range(config.blocks)]

        for width, fold in zip(config.widths, config.folds, strict=True):
            shortcut = config.shortcuts and bool(encoder)  # pixels are no features
            encoder.append(Fold(inputs, width, fold, shortcut=shortcut, rngs=rngs))
            encoder.extend(blocks(width))
            decoder.insert(0, Unfold(width, inputs, fold, shortcut=shortcut, rngs=rngs))
            decoder[:0] = blocks(width)
            inputs = width
        self.encoder, self.decoder = nnx.List(encoder), nnx.List(decoder)
        self.to_moments = Linear(inputs, 2 * config.channels, ("mlp", None), rngs=rngs)
        self.from_latents = Linear(config.channels, inputs, (None, "mlp"), rngs=rngs)
        # Latents begin as the lowest frequencies of pixels, with little noise: left to learn is
        # what is better than that.
        # Channels beyond those stay as drawn: one that is always zero could not be normalised.
        lowest, few = jnp.eye(inputs, config.channels), min(inputs, config.channels)
        drawn = self.to_moments.kernel[...].at[:, :few].set(lowest[:, :few])
        self.to_moments.kernel[...] = drawn.at[:, config.channels :].set(0.0)
        assert self.to_moments.bias is not None
        self.to_moments.bias[...] = jnp.repeat(jnp.array([0.0, -8.0]), config.channels)
        self.from_latents.kernel[...] = lowest.T

    def encode_chunk(
        self, video: Float[Array, "b t h w 3"], state: State
    ) -> tuple[Float[Array, "b s g v c"], Float[Array, "b s g v c"], State]:
        """Mean and log-variance of the latents of the next frames of a stream.

        A clip's first chunk (state None) has 1 + f*k frames, later ones f*k.
        """
        with jax.named_scope("vae_encode"):
            x, state = _run(self.encoder, video.astype(self.config.compute), state)
            mean, log_variance = jnp.split(self.to_moments(x.astype(jnp.float32)), 2, -1)
        return mean, jnp.clip(log_variance, *self.log_variances), state

    def decode_chunk(
        self, latents: Float[Array, "b s g v c"], state: State
    ) -> tuple[Float[Array, "b t h w 3"], State]:
        """The next frames of a stream: 1 + f*k of the first 1 + k latent frames, then f a frame."""
        with jax.named_scope("vae_decode"):
            x = self.from_latents(latents.astype(self.config.compute))
            video, state = _run(self.decoder, x, state)
        return video.astype(jnp.float32), state

    def encode(
        self, video: Float[Array, "b t h w 3"]
    ) -> tuple[Float[Array, "b s g v c"], Float[Array, "b s g v c"]]:
        """Mean and log-variance of the latents of whole clips in [-1, 1]."""
        mean, log_variance, _ = self.encode_chunk(video, None)
        return mean, log_variance

    def decode(self, latents: Float[Array, "b s g v c"]) -> Float[Array, "b t h w 3"]:
        """Whole clips in [-1, 1], not clipped."""
        return self.decode_chunk(latents, None)[0]

    def features(self, latents: Float[Array, "b s g v c"]) -> Float[Array, "b t h w d"]:
        """Of whole clips before the last map: decode = pixels of features."""
        with jax.named_scope("vae_decode"):
            x = self.from_latents(latents.astype(self.config.compute))
            return _run(list(self.decoder)[:-1], x, None)[0]

    def pixels(self, features: Float[Array, "b s g v d"]) -> Float[Array, "b t h w 3"]:
        return self.decoder[-1](features, None)[0].astype(jnp.float32)

    def last_kernel(self) -> Float[Array, "i o"]:
        """Of the map to pixels: where the losses of a reconstruction are weighed against each
        other."""
        last: Any = self.decoder[-1]
        kernel: Array = last.linear.kernel[...]
        return kernel


def to_unit(video: UInt8[Array, "*batch"]) -> Float[Array, "*batch"]:
    """uint8 pixels -> float32 in [-1, 1]."""
    return video.astype(jnp.float32) / 127.5 - 1.0


def to_uint8(video: Float[Array, "*batch"]) -> UInt8[Array, "*batch"]:
    """float in [-1, 1] -> uint8 pixels, rounded and clipped."""
    return jnp.clip(jnp.round((video + 1.0) * 127.5), 0, 255).astype(jnp.uint8)
