"""EfficientNet-Lite0 (arXiv:1905.11946, without squeeze-and-excitation): describes single pictures.

As with I3D, there is no way to make one without weights.
"""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from sora_jax.weights.published import Weights

SIDE = 224  # pixels, of the pictures it was trained on
CLASSES, WIDTH = 1_000, 1_280
STEM = 32
NORM_EPSILON = 1e-3

# Outputs, side of the depthwise kernel, stride of the first block, blocks, expansion.
STAGES = (
    (16, 3, 1, 1, 1),
    (24, 3, 2, 2, 6),
    (40, 5, 2, 2, 6),
    (80, 3, 2, 3, 6),
    (112, 5, 1, 3, 6),
    (192, 5, 2, 4, 6),
    (320, 3, 1, 1, 6),
)
STRIDES = [
    stride if number == 0 else 1 for _, _, stride, blocks, _ in STAGES for number in range(blocks)
]


def weight_shapes() -> dict[str, tuple[int, ...]]:
    """The arrays that the network is made of, by their names in PyTorch and in its order of axes:
    [outputs, inputs, height, width]. `_fc` is the classifier's, which is not needed here."""
    kernels: dict[str, tuple[str, tuple[int, ...]]] = {"_conv_stem": ("_bn0", (STEM, 3, 3, 3))}
    inputs, block = STEM, 0
    for outputs, side, _, blocks, expansion in STAGES:
        for _ in range(blocks):
            name, wide = f"_blocks.{block}", expansion * inputs
            if expansion > 1:
                kernels[f"{name}._expand_conv"] = (f"{name}._bn0", (wide, inputs, 1, 1))
            kernels[f"{name}._depthwise_conv"] = (f"{name}._bn1", (wide, 1, side, side))
            kernels[f"{name}._project_conv"] = (f"{name}._bn2", (outputs, wide, 1, 1))
            inputs, block = outputs, block + 1
    kernels["_conv_head"] = ("_bn1", (WIDTH, inputs, 1, 1))
    shapes: dict[str, tuple[int, ...]] = {}
    for kernel, (norm, shape) in kernels.items():
        shapes[f"{kernel}.weight"] = shape
        for part in ("weight", "bias", "running_mean", "running_var"):
            shapes[f"{norm}.{part}"] = shape[:1]
    return shapes | {"_fc.weight": (CLASSES, WIDTH), "_fc.bias": (CLASSES,)}


class Unit(nnx.Module):
    """Convolution and normalisation by fixed moments, which is folded into it. A kernel of one
    input is applied to each channel alone."""

    def __init__(self, weights: Weights, kernel: str, norm: str):
        scale, bias, mean, variance = (
            np.asarray(weights[f"{norm}.{part}"], np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        scale = scale / np.sqrt(variance + NORM_EPSILON)
        folded = np.asarray(weights[f"{kernel}.weight"]).transpose(2, 3, 1, 0) * scale
        self.kernel = nnx.Param(jnp.asarray(folded, jnp.float32))
        self.bias = nnx.Param(jnp.asarray(bias - mean * scale, jnp.float32))

    def __call__(self, x: Float[Array, "b h w i"], stride: int = 1) -> Float[Array, "b g v o"]:
        kernel = self.kernel[...]
        y = jax.lax.conv_general_dilated(
            x,
            kernel,
            window_strides=(stride, stride),
            padding="SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=x.shape[-1] // kernel.shape[2],
            precision=jax.lax.Precision.HIGHEST,  # the same features on every accelerator
        )
        return y + self.bias[...]


class Block(nnx.Module):
    """Expand, filter each channel, project; around it the identity where sizes allow."""

    def __init__(self, weights: Weights, name: str):
        expands = f"{name}._expand_conv.weight" in weights
        self.expand = Unit(weights, f"{name}._expand_conv", f"{name}._bn0") if expands else None
        self.depthwise = Unit(weights, f"{name}._depthwise_conv", f"{name}._bn1")
        self.project = Unit(weights, f"{name}._project_conv", f"{name}._bn2")

    def __call__(self, x: Float[Array, "b h w i"], stride: int) -> Float[Array, "b g v o"]:
        wide = x if self.expand is None else jax.nn.relu6(self.expand(x))
        y = self.project(jax.nn.relu6(self.depthwise(wide, stride)))
        return x + y if x.shape == y.shape else y


class EfficientNet(nnx.Module):
    """Pictures of SIDE x SIDE pixels in [-1, 1] to what the classifier reads: the last features,
    averaged over the picture. `weights`: arrays of `weight_shapes`."""

    def __init__(self, weights: Weights):
        self.stem = Unit(weights, "_conv_stem", "_bn0")
        self.blocks = nnx.List([Block(weights, f"_blocks.{i}") for i in range(len(STRIDES))])
        self.head = Unit(weights, "_conv_head", "_bn1")

    def __call__(self, pictures: Float[Array, "b 224 224 3"]) -> Float[Array, "b 1280"]:
        x = jax.nn.relu6(self.stem(pictures, 2))
        for block, stride in zip(self.blocks, STRIDES, strict=True):
            x = block(x, stride)
        return jnp.mean(jax.nn.relu6(self.head(x)), (1, 2))
