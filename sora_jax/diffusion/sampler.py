"""Integrates dx/dt = v from noise to data, each token along its own noise level.

    x' = x + (t' - t) v(x, t)                               (1)  Euler
    x' = x + (t' - t) (v(x, t) + v(x_euler, t')) / 2        (2)  Heun

and by the multistep samplers of `multistep.py`. A token whose level stays, t' = t, never moves:
so it is with given tokens, and in a roll-out with those that wait or are done.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal

import jax
from jaxtyping import Array, Float, Int

from sora_jax.diffusion import multistep
from sora_jax.diffusion.conditioning import NoiseField

Method = Literal["euler", "heun", "dpm_solver", "unipc", "sde"]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SolverState:
    """How far integration has come: all that its next step depends on, and a view of the end."""

    tokens: Float[Array, "b n c"]
    data: Float[Array, "b n c"]  # that the last step predicted; before the first one the noise
    history: multistep.History | None  # of multistep samplers


def begin(noisy: Float[Array, "b n c"], field: NoiseField, method: Method) -> SolverState:
    """Before the first step, from `noisy` tokens at the levels of `field`."""
    history = None
    if method not in ("euler", "heun"):
        history = multistep.History.none(noisy, multistep.settled(field.per_token()))
    return SolverState(noisy, noisy, history)


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
    start = begin(noisy, field_at(times[0]), method)
    steps = (0, len(times) - 1)
    return advance(velocity, field_at, start, times, steps, method, noise_at).tokens


def advance(
    velocity: Callable[[Float[Array, "b n c"], NoiseField], Float[Array, "b n c"]],
    field_at: Callable[[Float[Array, ""]], NoiseField],
    state: SolverState,
    times: Float[Array, " s"],
    steps: tuple[Any, Any],
    method: Method,
    noise_at: Callable[[Int[Array, ""]], Float[Array, "b n c"]] | None = None,
) -> SolverState:
    """The state after the steps from the first number of `steps` up to the second, which may be
    traced: one program then does any of them, and its numbers do not depend on where it stops."""
    if method == "sde" and noise_at is None:
        raise ValueError("the sampler 'sde' needs noise_at, the noise of each step")

    def step(number: Array, state: SolverState) -> SolverState:
        x, history = state.tokens, state.history
        now, after = field_at(times[number]), field_at(times[number + 1])
        level, goal = now.per_token(), after.per_token()
        slope = velocity(x, now)
        if history is None:
            change = goal - level
            if method == "heun":
                slope = (slope + velocity(x + change * slope, after)) / 2
            return SolverState(x + change * slope, x - level * slope, None)
        level, goal = multistep.settled(level), multistep.settled(goal)
        data = x - level * slope
        if method == "unipc":
            x = multistep.corrected(x, data, level, goal, history)
        noise = noise_at(number) if method == "sde" and noise_at is not None else None
        moved = multistep.predicted(x, data, level, goal, history, noise)
        return SolverState(moved, data, history.after(x, data, level, goal))

    state_after: SolverState = jax.lax.fori_loop(*steps, step, state)
    return state_after
