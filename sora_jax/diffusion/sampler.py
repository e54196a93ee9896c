"""Integrates dx/dt = v from noise to data, each token along its own noise level.

    x' = x + (t' - t) v(x, t)                               (1)  Euler
    x' = x + (t' - t) (v(x, t) + v(x_euler, t')) / 2        (2)  Heun

Given tokens keep their level, so t' = t for them and they never move.
"""

from collections.abc import Callable
from typing import Literal

import jax
from jaxtyping import Array, Float

from sora_jax.diffusion.conditioning import NoiseField

Method = Literal["euler", "heun"]


def integrate(
    velocity: Callable[[Float[Array, "b n c"], NoiseField], Float[Array, "b n c"]],
    field_at: Callable[[Float[Array, ""]], NoiseField],
    noisy: Float[Array, "b n c"],
    times: Float[Array, " s"],
    method: Method,
) -> Float[Array, "b n c"]:
    """Tokens at times[-1], from `noisy` tokens at times[0]. `field_at(t)` is the noise field when
    generated tokens stand at t."""

    def advance(x: Array, interval: tuple[Array, Array]) -> tuple[Array, None]:
        now, after = field_at(interval[0]), field_at(interval[1])
        change = after.per_token() - now.per_token()
        slope = velocity(x, now)
        if method == "heun":
            slope = (slope + velocity(x + change * slope, after)) / 2
        return x + change * slope, None

    return jax.lax.scan(advance, noisy, (times[:-1], times[1:]))[0]
