"""Multistep samplers: second order for one evaluation a step, from what earlier steps predicted.

With D = x - t v the data that a step predicts, lambda = log((1 - t) / t) and h = lambda' - lambda:

    x' = (t'/t) x + (1 - t'/t) D*                                          (1)  DPM-Solver++(2M)
    D* = D + h / (2 h_last) (D - D_last)                                   (2)
    x' = (t'/t) e^-h x + (1 - t') (1 - e^-2h) D* + t' sqrt(1 - e^-2h) z    (3)  the same of the SDE
    x <- (t/t_last) x_last + (1 - t/t_last) D~                             (4)  UniC-2

(1) to (3) are of arXiv:2211.01095, for alpha = 1 - t and sigma = t. UniPC of order 2
(arXiv:2302.04867) is (1) after (4), which does the last step over with D~, the mean over the step,
weighted by e^lambda, of the parabola in lambda through D, D_last and D_before. The paper leaves the
choice of B(h) open: (1) is its UniP-2 with B = e^h - 1, bounded where h is infinite, and (4) does
not depend on it. The marginals of (3), in which fresh noise z takes the place of old, are those of
the ODE.

lambda is infinite at t = 1 and t = 0, where (1) and (3) have limits. That of (2) is D in a step
after one that began at 1. A step that ends at 0 takes D too, for the slope in lambda says nothing
of so far; it is Euler's, whose error there falls with the square of the step. A velocity that leads
to the same D everywhere is followed exactly. A level that rounding keeps off an end is `settled`
there, or (2) would believe in a slope over an h that is long and should be infinite.

A token's history is of the steps in which it moved. It is without one while it waits at its first
level, and those are steps of first order that it begins with, whatever others did before.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class History:
    """Where the last two steps of each token began. Where there was no such step its level is that
    of the one that follows."""

    tokens: Float[Array, "b n c"]
    level: Float[Array, "b n 1"]
    data: Float[Array, "b n c"]  # predicted there
    level_before: Float[Array, "b n 1"]
    data_before: Float[Array, "b n c"]

    @classmethod
    def none(cls, tokens: Float[Array, "b n c"], level: Float[Array, "b n 1"]) -> "History":
        """Of tokens that begin here."""
        return cls(tokens, level, jnp.zeros_like(tokens), level, jnp.zeros_like(tokens))

    def after(
        self,
        tokens: Float[Array, "b n c"],
        data: Float[Array, "b n c"],
        level: Float[Array, "b n 1"],
        goal: Float[Array, "b n 1"],
    ) -> "History":
        """With the step from `level` to `goal`, for tokens that it moves."""
        longer = History(tokens, level, data, self.level, self.data)
        return jax.tree.map(lambda new, old: jnp.where(goal != level, new, old), longer, self)


def settled(level: Float[Array, "b n 1"]) -> Float[Array, "b n 1"]:
    """Levels, of which those within a millionth of 0 or 1 are that."""
    level = jnp.where(level < 1e-6, 0.0, level)
    return jnp.where(level > 1 - 1e-6, 1.0, level)


def predicted(
    tokens: Float[Array, "b n c"],
    data: Float[Array, "b n c"],
    level: Float[Array, "b n 1"],
    goal: Float[Array, "b n 1"],
    history: History,
    noise: Float[Array, "b n c"] | None = None,
) -> Float[Array, "b n c"]:
    """Equation (1), or (3) with noise: tokens at `goal`."""
    moves = goal != level
    h = jnp.where(moves, log_ratio(goal) - log_ratio(level), 0.0)
    h_last = log_ratio(level) - log_ratio(history.level)
    follows = (history.level != level) & jnp.isfinite(h)
    data = data + jnp.where(follows, h / (2 * h_last), 0.0) * (data - history.data)
    kept = jnp.where(moves, goal / level, 1.0)
    if noise is None:
        return kept * tokens + (1 - kept) * data
    renewed = -jnp.expm1(-2 * h)
    signal = kept * jnp.exp(-h) * tokens + (1 - goal) * renewed * data
    return signal + goal * jnp.sqrt(renewed) * noise


def corrected(
    tokens: Float[Array, "b n c"],
    data: Float[Array, "b n c"],
    level: Float[Array, "b n 1"],
    goal: Float[Array, "b n 1"],
    history: History,
) -> Float[Array, "b n c"]:
    """Equation (4), of tokens that are about to move on to `goal`: those that have arrived stay.

    After a first step, which has no D_before, D~ is (D + D_last) / 2: UniC-1 of the paper.
    """
    moves = (goal != level) & (history.level != level)
    parabola = moves & (history.level_before != history.level)
    h = log_ratio(level) - log_ratio(history.level)
    # How long the step before was, for 1 of the last; and the means over the last, weighted by
    # e^lambda, of u and u^2, where u goes from 0 to 1.
    ratio = (log_ratio(history.level) - log_ratio(history.level_before)) / h
    mean = -1 / jnp.expm1(-h) - 1 / h
    square = -1 / jnp.expm1(-h) - 2 * mean / h
    bend = (square - mean) / (1 + ratio)
    # Lagrange's polynomials for u = 1, where D is, and u = -ratio, where D_before is.
    here = jnp.where(parabola, mean + bend, 0.5)
    before = jnp.where(parabola, bend / ratio, 0.0)
    data = here * data + before * history.data_before + (1 - here - before) * history.data
    kept = jnp.where(moves, level / history.level, 1.0)
    return jnp.where(moves, kept * history.tokens + (1 - kept) * data, tokens)


def log_ratio(level: Float[Array, "b n 1"]) -> Float[Array, "b n 1"]:
    """lambda, half the logarithm of the signal-to-noise ratio."""
    return jnp.log1p(-level) - jnp.log(level)
