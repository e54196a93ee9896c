"""Classifier-free guidance (arXiv:2207.12598): two velocities in, one out."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Velocity = Callable[[Float[Array, "b n c"], Any, Any], Float[Array, "b n c"]]


def guided(velocity: Velocity, scale: float) -> Callable[..., Float[Array, "b n c"]]:
    """v = v(null) + scale * (v(text) - v(null)), both computed in one call of 2b rows. At a scale
    of 1 that is v(text), and nothing else is computed.

    The result takes (x, layout, text, null_text), whose arrays all have b rows.
    """

    def both(x: Array, layout: Any, text: Any, null_text: Any) -> Array:
        x, layout = jax.tree.map(lambda a: jnp.concatenate([a, a]), (x, layout))
        texts = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), text, null_text)
        with_text, without = jnp.split(velocity(x, layout, texts), 2)
        return without + scale * (with_text - without)

    def unguided(x: Array, layout: Any, text: Any, null_text: Any) -> Array:
        return velocity(x, layout, text)

    return unguided if scale == 1 else both
