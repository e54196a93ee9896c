"""The network of the Fréchet video distance: I3D (arXiv:1705.07750), Inception-v1 inflated in time.

There is no way to make one without weights: a module takes its arrays, and draws none.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from sora_jax.weights.published import Weights

SIDE = 224  # pixels, of the frames it was trained on
LEAST_FRAMES = 9  # of fewer, time is halved to one step, and the last average is over two
CLASSES = 400
NORM_EPSILON = 1e-3

# Outputs of a block's convolutions (arXiv:1409.4842, table 1): 1x1; 1x1, then 3x3; 1x1, then the
# 3x3 that stands for 5x5; 1x1 after pooling. The first block follows the stem of 192.
BLOCKS: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
BRANCHES = (
    "Branch_0/Conv3d_0a_1x1",
    "Branch_1/Conv3d_0a_1x1",
    "Branch_1/Conv3d_0b_3x3",
    "Branch_2/Conv3d_0a_1x1",
    "Branch_2/Conv3d_0b_3x3",
    "Branch_3/Conv3d_0b_1x1",
)
# Before a block: the (frames, side) of the window that is pooled, which is also the stride but for
# sides of 3, whose stride is 2.
POOLED_BEFORE = {"Mixed_3b": (1, 3), "Mixed_4b": (3, 3), "Mixed_5b": (2, 2)}


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """The arrays that an I3D is made of. Each unit but the last has a kernel, and the mean,
    variance and bias of its normalisation, which has no scale."""
    kernels = {
        "Conv3d_1a_7x7": (7, 7, 7, 3, 64),
        "Conv3d_2b_1x1": (1, 1, 1, 64, 64),
        "Conv3d_2c_3x3": (3, 3, 3, 64, 192),
    }
    inputs = 192
    for block, (single, before, middle, reduced, large, pooled) in BLOCKS.items():
        sizes = (
            (1, inputs, single),
            (1, inputs, before),
            (3, before, middle),
            (1, inputs, reduced),
            (3, reduced, large),
            (1, inputs, pooled),
        )
        for branch, (side, width, outputs) in zip(BRANCHES, sizes, strict=True):
            kernels[f"{block}/{branch}"] = (side, side, side, width, outputs)
        inputs = single + middle + large + pooled
    shapes: dict[str, tuple[int, ...]] = {}
    for unit, kernel in kernels.items():
        shapes[f"{unit}/kernel"] = kernel
        shapes |= {f"{unit}/{name}": kernel[-1:] for name in ("mean", "variance", "bias")}
    logits = "Logits/Conv3d_0c_1x1"
    return shapes | {f"{logits}/kernel": (1, 1, 1, inputs, CLASSES), f"{logits}/bias": (CLASSES,)}


class Unit(nnx.Module):
    """Convolution, normalisation by fixed moments, ReLU. The normalisation is folded into kernel
    and bias."""

    def __init__(self, weights: Weights, name: str):
        mean, variance, bias, kernel = (
            np.asarray(weights[f"{name}/{part}"], np.float64)
            for part in ("mean", "variance", "bias", "kernel")
        )
        scale = 1 / np.sqrt(variance + NORM_EPSILON)
        self.kernel = nnx.Param(jnp.asarray(kernel * scale, jnp.float32))
        self.bias = nnx.Param(jnp.asarray(bias - mean * scale, jnp.float32))

    def __call__(self, x: Float[Array, "b t h w i"], stride: int = 1) -> Float[Array, "b s g v o"]:
        y = jax.lax.conv_general_dilated(
            x,
            self.kernel[...],
            window_strides=(stride,) * 3,
            padding="SAME",
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
            precision=jax.lax.Precision.HIGHEST,  # the same features on every accelerator
        )
        return jax.nn.relu(y + self.bias[...])


class Block(nnx.Module):
    """An Inception block: four branches side by side."""

    def __init__(self, weights: Weights, name: str):
        self.units = nnx.List([Unit(weights, f"{name}/{branch}") for branch in BRANCHES])

    def __call__(self, x: Float[Array, "b t h w i"]) -> Float[Array, "b t h w o"]:
        single, before, middle, reduced, large, pooled = self.units
        around = _max_pool(x, (3, 3, 3), (1, 1, 1))
        branches = [single(x), middle(before(x)), large(reduced(x)), pooled(around)]
        return jnp.concatenate(branches, -1)


class I3D(nnx.Module):
    """Clips of LEAST_FRAMES frames or more, SIDE x SIDE pixels in [-1, 1], to the logits of the
    classes, averaged over time: the layer that the Fréchet video distance is defined on
    (arXiv:1812.01717). `weights`: arrays of `weight_shapes`."""

    def __init__(self, weights: Weights):
        self.first = Unit(weights, "Conv3d_1a_7x7")
        self.second = Unit(weights, "Conv3d_2b_1x1")
        self.third = Unit(weights, "Conv3d_2c_3x3")
        self.blocks = nnx.List([Block(weights, name) for name in BLOCKS])
        kernel, bias = (weights[f"Logits/Conv3d_0c_1x1/{part}"] for part in ("kernel", "bias"))
        self.kernel = nnx.Param(jnp.asarray(kernel, jnp.float32).reshape(-1, CLASSES))
        self.bias = nnx.Param(jnp.asarray(bias, jnp.float32))

    def __call__(self, video: Float[Array, "b t 224 224 3"]) -> Float[Array, "b 400"]:
        if video.shape[1] < LEAST_FRAMES:
            raise ValueError(f"I3D of {video.shape[1]} frames: it takes {LEAST_FRAMES} or more")
        x = _max_pool(self.first(video, stride=2), (1, 3, 3), (1, 2, 2))
        x = self.third(self.second(x))
        for name, block in zip(BLOCKS, self.blocks, strict=True):
            if name in POOLED_BEFORE:
                frames, side = POOLED_BEFORE[name]
                x = _max_pool(x, (frames, side, side), (min(frames, 2), 2, 2))
            x = block(x)
        # Windows of two time steps and all of 7 x 7 cells, one step apart; all that follows is
        # linear, so the windows are averaged first.
        inner = jnp.mean(0.5 * (x[:, 1:] + x[:, :-1]), (1, 2, 3))
        return jnp.matmul(inner, self.kernel[...], precision="highest") + self.bias[...]


def _max_pool(
    x: Float[Array, "b t h w c"], window: tuple[int, int, int], stride: tuple[int, int, int]
) -> Float[Array, "b s g v c"]:
    return jax.lax.reduce_window(x, -jnp.inf, jax.lax.max, (1, *window, 1), (1, *stride, 1), "SAME")
