"""Sampling steps on generated tokens alone: given ones are computed once and remembered."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sora_jax.diffusion.guidance import GuidanceConfig, guided
from sora_jax.models.generator import Generator
from sora_jax.models.memory import remember
from sora_jax.nn.attention import Memory
from sora_jax.types import Layout, Text


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Told:
    """A caption, and what it makes of the given tokens."""

    text: Text
    memory: Memory


class RememberingGuide:
    """Guided velocity of rows whose tokens in `made` are generated and whose others are given, at
    the same values and levels throughout. It takes what the function of `guided` takes, with
    captions as `told` makes them."""

    def __init__(
        self,
        generator: Generator,
        guidance: float | GuidanceConfig,
        made: slice,
        tokens: Float[Array, "b n c"],
        layout: Layout,
    ):
        self.generator, self.made = generator, made
        self.guide = guided(_velocity(generator), guidance)
        self.given = _others(tokens, made)
        self.layout = _tokens_of(layout, lambda x: _others(x, made))

    def told(self, text: Text) -> Told:
        return Told(text, remember(self.generator.dit, self.given, self.layout, text))

    def __call__(
        self, x: Array, layout: Layout, told: Told, null: Told, generated: Array, *_: Any
    ) -> Float[Array, "b n c"]:
        """The velocity, 0 at given tokens."""

        def made(x: Array) -> Array:
            return x[:, self.made]

        found = self.guide(made(x), _tokens_of(layout, made), told, null, made(generated))
        return jnp.zeros_like(x).at[:, self.made].set(found)


def _velocity(generator: Generator) -> Callable[[Array, Layout, Told], Array]:
    return lambda x, layout, told: generator(x, layout, told.text, told.memory)


def _others(x: Float[Array, "b n ..."], made: slice) -> Float[Array, "b s ..."]:
    return jnp.concatenate([x[:, : made.start], x[:, made.stop :]], 1)


def _tokens_of(layout: Layout, choose: Callable[[Array], Array]) -> Layout:
    """The layout of some tokens, which are all given or all generated."""
    return dataclasses.replace(
        layout,
        coordinates=choose(layout.coordinates),
        segments=choose(layout.segments),
        level_index=choose(layout.level_index),
        given_segments=None,
    )
