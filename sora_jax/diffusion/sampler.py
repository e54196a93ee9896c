"""Integrates dx/dt = v from noise to data, each token along its own noise level.

    x' = x + (t' - t) v(x, t)                               (1)  Euler
    x' = x + (t' - t) (v(x, t) + v(x_euler, t')) / 2        (2)  Heun

and by the multistep samplers of `multistep.py`. A token whose level stays, t' = t, never moves:
so it is with given tokens, and in a roll-out with those that wait or are done.
"""

from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from sora_jax.diffusion import multistep
from sora_jax.diffusion.conditioning import NoiseField

Method = Literal["euler", "heun", "dpm_solver", "unipc", "sde"]


def integrate(
    velocity: Callable[[Float[Array, "b n c"], NoiseField], Float[Array, "b n c"]],
    field_at: Callable[[Float[Array, ""]], NoiseField],
    noisy: Float[Array, "b n c"],
    times: Float[Array, " s"],
    method: Method,
    noise_at: Callable[[Int[Array, ""]], Float[Array, "b n c"]] | None = None,
) -> Float[Array, "b n c"]:
    """Tokens at times[-1], from `noisy` tokens at times[0]. `field_at(t)` is the noise field when
    the clock stands at t: generated tokens may all be at t, or each at a level of its own.

    Heun evaluates the velocity twice a step, the others once. For "sde" `noise_at(step)` is the
    standard normal noise of each step, to be keyed by what it is about. Levels may rise in (1) and
    (2) alone.
    """
    if method == "sde" and noise_at is None:
        raise ValueError("the sampler 'sde' needs noise_at, the noise of each step")

    def advance(carry: tuple, interval: tuple[Array, Array, Array]) -> tuple[tuple, None]:
        (x, history), (start, end, step) = carry, interval
        now, after = field_at(start), field_at(end)
        level, goal = now.per_token(), after.per_token()
        slope = velocity(x, now)
        if history is None:
            change = goal - level
            if method == "heun":
                slope = (slope + velocity(x + change * slope, after)) / 2
            return (x + change * slope, None), None
        level, goal = multistep.settled(level), multistep.settled(goal)
        data = x - level * slope
        if method == "unipc":
            x = multistep.corrected(x, data, level, goal, history)
        noise = noise_at(step) if method == "sde" and noise_at is not None else None
        moved = multistep.predicted(x, data, level, goal, history, noise)
        return (moved, history.after(x, data, level, goal)), None

    history = None
    if method not in ("euler", "heun"):
        history = multistep.History.none(noisy, multistep.settled(field_at(times[0]).per_token()))
    steps = (times[:-1], times[1:], jnp.arange(len(times) - 1))
    return jax.lax.scan(advance, (noisy, history), steps)[0][0]
