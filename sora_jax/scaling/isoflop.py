"""IsoFLOP profiles: the best size at each budget, and how it grows with FLOPs.

(Approach 2 of Hoffmann et al. 2022, arXiv:2203.15556.) The losses at one budget against log N are a
valley. A parabola through the sizes about its bottom gives the best size: one through all sizes is
biased, since the valley is steeper on one side, and a spline follows the noise.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray as Array

from sora_jax.scaling.points import SIZES_OF_BUDGET, Points
from sora_jax.scaling.power_laws import PowerLaw, fit_power_law

# The parabola goes through the nearest five sizes, and all within three times, of its own minimum:
# of narrower ones noise moves the minimum twice as much, and wider ones are biased.
NEAREST, FACTOR, ROUNDS = 5, 3.0, 4
BUDGETS_OF_LAW = 3  # fewer leave no interval
FARTHEST = 4.0  # times a size, how far beyond the sizes at hand a further one is asked for


@dataclasses.dataclass(frozen=True)
class Valley:
    """The losses of a budget, and their minimum: `problem` says why there is none.

    Attributes:
        budget: FLOPs.
        chosen: the points that the parabola goes through, by position.
        parabola: of log N about `middle`, highest power first.
        parameters, tokens, loss: at the minimum.
    """

    budget: float
    chosen: Int[Array, "n"]
    middle: float
    parabola: Float[Array, "3"]
    parameters: float
    tokens: float
    loss: float
    problem: str | None = None


@dataclasses.dataclass(frozen=True)
class IsoFlop:
    """The valleys of all budgets, and laws of FLOPs through the minima of those that have one."""

    valleys: tuple[Valley, ...]
    parameters: PowerLaw
    tokens: PowerLaw
    loss: PowerLaw


def valley_of(points: Points, budget: float) -> Valley:
    """The valley at one of the budgets of points."""
    there = np.flatnonzero(points.budgets == budget)
    x = np.log(points.parameters[there])
    sizes, size_of = np.unique(x, return_inverse=True)
    if len(sizes) < SIZES_OF_BUDGET:
        few = f"it has {len(sizes)} sizes, and a minimum needs {SIZES_OF_BUDGET} or more"
        nothing = np.full(3, np.nan)
        return Valley(budget, there, float(x.mean()), nothing, np.nan, np.nan, np.nan, few)
    losses = points.losses[there]
    (best,), (parabola,), (near,), (convex,) = bottoms(x, losses[None])
    lowest = int((np.bincount(size_of, losses) / np.bincount(size_of)).argmin())
    problem = _problem(sizes, lowest, best if convex else np.nan)
    middle, chosen = float(x.mean()), there[near]
    tokens = np.polyfit(x[near] - middle, np.log(points.tokens[chosen]), 1)
    return Valley(
        budget,
        chosen,
        middle,
        parabola,
        float(np.exp(best)),
        float(np.exp(np.polyval(tokens, best - middle))),
        float(np.polyval(parabola, best - middle)),
        problem,
    )


def bottoms(
    x: Float[Array, "n"], losses: Float[Array, "r n"]
) -> tuple[Float[Array, "r"], Float[Array, "r 3"], Bool[Array, "r n"], Bool[Array, "r"]]:
    """Of r valleys over the same log N: where the minimum is, the parabola about the mean of x,
    which runs it goes through, and whether it was convex all the time. A parabola that is not has
    its minimum at the lower end of the sizes."""
    sizes, size_of = np.unique(x, return_inverse=True)
    powers = np.vander(x - x.mean(), 3)
    products = powers[:, :, None] * powers[:, None, :]
    best, convex = x[losses.argmin(1)], np.ones(len(losses), bool)
    for _ in range(ROUNDS):
        distance = np.abs(sizes - np.clip(best, sizes[0], sizes[-1])[:, None])
        nearest = np.sort(distance, 1)[:, min(NEAREST, len(sizes)) - 1, None]
        near = ((distance <= np.log(FACTOR)) | (distance <= nearest))[:, size_of]
        system = np.einsum("rn,npq->rpq", near.astype(float), products)
        parabola = np.linalg.solve(system, ((near * losses) @ powers)[..., None])[..., 0]
        square, slope = parabola[:, 0], parabola[:, 1]
        vertex = x.mean() - slope / (2 * np.maximum(square, 1e-12))
        vertex = np.clip(vertex, sizes[0] - np.log(FARTHEST), sizes[-1] + np.log(FARTHEST))
        best = np.where(square > 0, vertex, np.where(slope > 0, sizes[0], sizes[-1]))
        convex &= square > 0
    return best, parabola, near, convex


def _problem(sizes: Float[Array, "s"], lowest: int, best: float) -> str | None:
    if lowest in (0, len(sizes) - 1):
        outwards = -1 if lowest == 0 else 1
        step = outwards * abs(sizes[lowest] - sizes[lowest - outwards])
        beyond = (best - sizes[lowest]) * outwards > 0
        farthest = sizes[lowest] + outwards * np.log(FARTHEST)
        # One step beyond where the valley seems to end, so that it is closed.
        wanted = (best if beyond else sizes[lowest]) + step
        wanted = min(wanted, farthest) if outwards > 0 else max(wanted, farthest)
        end = "smallest" if lowest == 0 else "largest"
        return (
            f"not bracketed, its {end} size has the lowest loss: add a size of about "
            f"{np.exp(wanted):.2g} parameters"
        )
    if not np.isfinite(best):
        return "its losses are not convex about the lowest one: noise, or runs that are not tuned"
    if not sizes[0] <= best <= sizes[-1]:
        return f"not bracketed: add a size of about {np.exp(best):.2g} parameters"
    return None


def fit_isoflop(
    points: Points, rng: np.random.Generator, resamples: int
) -> tuple[IsoFlop | None, tuple[Valley, ...]]:
    """The laws, None where fewer than three budgets have a minimum; and the valleys.

    Exponents' intervals come from the scatter of minima about the line, or from the noise of runs
    where that is wider (`power_laws.fit_power_law`): losses are thrown about their parabolas by
    their residuals with random signs, one sign for each cluster (a wild cluster bootstrap; Cameron,
    Gelbach and Miller 2008), scaled up for the three numbers of each parabola.
    """
    valleys = tuple(valley_of(points, budget) for budget in points.distinct_budgets)
    good = [each for each in valleys if each.problem is None]
    if len(good) < BUDGETS_OF_LAW:
        return None, valleys
    others = _thrown(points, good, rng, resamples)
    flops = {"flops": np.array([np.exp(np.log(points.flops[v.chosen]).mean()) for v in good])}
    laws = [
        fit_power_law(flops, np.array([getattr(v, name) for v in good]), rng, resamples, other)
        for name, other in zip(("parameters", "tokens", "loss"), others, strict=True)
    ]
    return IsoFlop(valleys, *laws), valleys


def _thrown(
    points: Points, valleys: list[Valley], rng: np.random.Generator, resamples: int
) -> Float[Array, "3 r k"]:
    """Minima (parameters, tokens, loss) as they would be with the residuals' signs drawn anew."""
    signs = rng.choice([-1.0, 1.0], (resamples, int(points.clusters.max()) + 1))
    used = sum(len(each.chosen) for each in valleys)
    freedom = max(used - 3 * len(valleys), 1)
    # How large the noise is, so few residuals say as surely as chi squared of their number.
    scale = np.sqrt(used / rng.chisquare(freedom, (resamples, 1)))
    minima = []
    for each in valleys:
        there = np.flatnonzero(points.budgets == each.budget)
        x, losses = np.log(points.parameters[there]), points.losses[there]
        chosen = np.isin(there, each.chosen)
        # Runs that the parabola does not go through are as noisy as those that it does.
        fitted = np.where(chosen, np.polyval(each.parabola, x - each.middle), losses)
        noise = np.sqrt(np.mean((losses - fitted)[chosen] ** 2))
        residuals = np.where(chosen, losses - fitted, noise) * signs[:, points.clusters[there]]
        best, parabola, _, _ = bottoms(x, fitted + scale * residuals)
        best = np.clip(best, x.min(), x.max())
        tokens = np.polyval(np.polyfit(x, np.log(points.tokens[there]), 1), best)
        square, slope, level = parabola.T
        at = best - x.mean()
        minima.append((np.exp(best), np.exp(tokens), square * at**2 + slope * at + level))
    return np.maximum(np.moveaxis(np.array(minima), 0, -1), 1e-12)
