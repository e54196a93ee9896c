"""How unlike two pictures look: LPIPS (arXiv:1801.03924), by the features of VGG16.

    d(x, y) = sum over stages s of mean over cells of sum_c w_sc (f_sc(x) - f_sc(y))^2       (1)

f_s are the channels of the last ReLU of stage s, of length 1 at every cell, and w_s >= 0 weigh
them: the heads, which were fitted to what people found alike.

Two networks, which differ in how they halve pictures, and whose distances do not compare. "max" is
VGG16 itself. "blurred" is that of ST-LPIPS (arXiv:2207.13686): the largest of 2 x 2 cells at every
cell, blurred by (1, 2, 1) / 4, then every second, so that a shift by a pixel changes little.

There is no way to make one without weights: a module takes its arrays, and draws none.
"""

from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from sora_jax.errors import UserError

Pooling = Literal["max", "blurred"]

CONVOLUTIONS = (2, 2, 3, 3, 3)  # of a stage; pictures are halved between stages
WIDTHS = (64, 128, 256, 512, 512)
LEAST_SIDE: Mapping[Pooling, int] = {"max": 16, "blurred": 18}  # the last stage is empty below

# Pixels in [-1, 1] as VGG16 was trained on: those in [0, 1] less ImageNet's mean, over its
# deviation, rounded as the heads were fitted.
SHIFT, SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)
EPSILON = 1e-10


def weight_shapes(widths: tuple[int, ...] = WIDTHS) -> dict[str, tuple[int, ...]]:
    """The arrays that an LPIPS is made of: conv1_1/kernel [3 3 i o], conv1_1/bias, head1 [o]."""
    shapes: dict[str, tuple[int, ...]] = {}
    inputs = 3
    for stage, (width, count) in enumerate(zip(widths, CONVOLUTIONS, strict=True), 1):
        for number in range(1, count + 1):
            shapes[f"conv{stage}_{number}/kernel"] = (3, 3, inputs, width)
            shapes[f"conv{stage}_{number}/bias"] = (width,)
            inputs = width
        shapes[f"head{stage}"] = (width,)
    return shapes


class Convolution(nnx.Module):
    """3 x 3 with zeros around, then ReLU."""

    def __init__(self, weights: Mapping[str, np.ndarray], name: str):
        kernel, bias = (jnp.asarray(weights[f"{name}/{part}"]) for part in ("kernel", "bias"))
        inputs = "features" if kernel.shape[2] == 3 else "embed"
        self.kernel = nnx.Param(kernel, axes=(None, None, inputs, "mlp"))
        self.bias = nnx.Param(bias, axes=("mlp",))

    def __call__(self, x: Float[Array, "n h w i"]) -> Float[Array, "n h w o"]:
        y = jax.lax.conv_general_dilated(
            x,
            self.kernel[...].astype(x.dtype),
            window_strides=(1, 1),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            precision=jax.lax.Precision.HIGHEST,  # float32 means float32 on every accelerator
        )
        return jax.nn.relu(y + self.bias[...].astype(x.dtype))


class LPIPS(nnx.Module):
    """Equation (1) for each pair of pictures in [-1, 1], of any sizes from LEAST_SIDE on.

    The dtype of the pictures is that of the trunk; lengths, differences and sums are float32.
    `weights`: float32 arrays of `weight_shapes`.
    """

    def __init__(self, weights: Mapping[str, np.ndarray], pooling: Pooling):
        self.pooling = pooling
        stages = []
        for stage, count in enumerate(CONVOLUTIONS, 1):
            names = [f"conv{stage}_{number}" for number in range(1, count + 1)]
            stages.append(nnx.List([Convolution(weights, name) for name in names]))
        self.stages = nnx.List(stages)
        heads = [jnp.asarray(weights[f"head{stage}"]) for stage, _ in enumerate(stages, 1)]
        self.heads = nnx.List([nnx.Param(head, axes=("mlp",)) for head in heads])

    def __call__(
        self, x: Float[Array, "*batch h w 3"], y: Float[Array, "*batch h w 3"]
    ) -> Float[Array, "*batch"]:
        *batch, h, w, _ = x.shape
        least = LEAST_SIDE[self.pooling]
        if min(h, w) < least:
            raise UserError(
                f"LPIPS of pictures of {h}x{w} pixels: it takes {least} or more on a side"
            )
        with jax.named_scope("lpips"):
            # One after the other: what no gradient flows to costs no backward pass.
            of_x, of_y = (self.features(each.reshape(-1, h, w, 3)) for each in (x, y))
            return self.between(of_x, of_y).reshape(batch)

    def between(self, of_x: list[Array], of_y: list[Array]) -> Float[Array, " n"]:
        """Equation (1) from the features of both: those of a picture serve for many pairs."""
        distance = jnp.zeros(len(of_x[0]))
        for head, first, second in zip(self.heads, of_x, of_y, strict=True):
            square = jnp.square(_of_length_one(first) - _of_length_one(second))
            distance += jnp.mean(square @ head[...], (1, 2))
        return distance

    def features(self, x: Float[Array, "n h w 3"]) -> list[Array]:
        """The channels of every stage, before they are made of length 1."""
        x = (x - jnp.asarray(SHIFT, x.dtype)) / jnp.asarray(SCALE, x.dtype)
        found: list[Array] = []
        for stage in self.stages:
            x = _halved(x, self.pooling) if found else x
            for convolution in stage:
                x = convolution(x)
            found.append(x)
        return found


def _of_length_one(x: Float[Array, "n h w c"]) -> Float[Array, "n h w c"]:
    """Where all channels are 0 they stay so, and their gradient is finite, unlike the root's."""
    x = x.astype(jnp.float32)
    square = jnp.sum(jnp.square(x), -1, keepdims=True)
    return x / (jnp.sqrt(jnp.where(square > 0, square, 1)) + EPSILON)


def _halved(x: Float[Array, "n h w c"], pooling: Pooling) -> Float[Array, "n g v c"]:
    """h // 2 rows of "max" and h // 2 + 1 of "blurred", and columns alike.

    By slices: on CPU a convolution of every channel by itself takes longer than all of VGG16, and
    the gradient of a windowed maximum is slow too.
    """
    if pooling == "max":
        for axis in (1, 2):
            x = jnp.maximum(*_windows(x, axis, of=2, stride=2))
        return x
    for axis in (1, 2):
        x = jnp.maximum(*_windows(x, axis, of=2, stride=1))
    x = jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)), mode="reflect")
    for axis in (1, 2):
        before, at, after = _windows(x, axis, of=3, stride=2)
        x = 0.25 * before + 0.5 * at + 0.25 * after
    return x


def _windows(x: Array, axis: int, of: int, stride: int) -> list[Array]:
    """The first cells of all windows of so many cells, their second cells, and so on."""
    end = x.shape[axis] - of + 1
    return [jax.lax.slice_in_dim(x, n, n + end, stride, axis) for n in range(of)]
