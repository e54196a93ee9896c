"""An autoencoder with the networks that judge its reconstructions, as they are trained."""

from collections.abc import Callable
from typing import Any

import jax
from flax import nnx
from jaxtyping import Array, Float

from sora_jax.models.discriminator import Discriminator

PerceptualDistance = Callable[
    [Float[Array, "n h w 3"], Float[Array, "n h w 3"]], Float[Array, " n"]
]
"""Of images in [-1, 1]: a module, whose parameters nothing changes."""


class JudgedVAE(nnx.Module):
    """`vae` is what a run is for. `perceptual` is given, and lies in the state to be split over the
    mesh as all of it is; `discriminator` is trained against `vae`. Either may be left out."""

    def __init__(
        self, vae: Any, perceptual: PerceptualDistance | None, discriminator: Discriminator | None
    ):
        self.vae, self.perceptual, self.discriminator = vae, perceptual, discriminator


def autoencoder_of(model: Any) -> Any:
    """What a run of the autoencoder is for, of what it trains."""
    return model.vae if isinstance(model, JudgedVAE) else model


def part_of(path: tuple[Any, ...]) -> str:
    """Which network a leaf of a JudgedVAE, or of what is shaped like it, belongs to."""
    return str(getattr(path[0], "name", getattr(path[0], "key", path[0])))


def parts_of(model: JudgedVAE) -> Any:
    """A tree like `model` with the name of the network at every leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, _: part_of(path), model)
