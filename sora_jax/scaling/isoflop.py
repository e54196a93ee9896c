"""IsoFLOP profiles: the best size at each budget, and how it grows with FLOPs.

(Approach 2 of Hoffmann et al. 2022, arXiv:2203.15556.) The losses at one budget against log N are a
valley. A parabola through the five sizes about its lowest loss gives the best size: one through all
sizes is biased, since the valley is steeper on one side, and a spline follows the noise.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from sora_jax.scaling.points import SIZES_OF_BUDGET, Points
from sora_jax.scaling.power_laws import PowerLaw, fit_power_law

SIDE = 2  # sizes on either side of the lowest loss that the parabola goes through
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
    sizes, size_of = np.unique(np.log(points.parameters[there]), return_inverse=True)
    means = np.bincount(size_of, points.losses[there]) / np.bincount(size_of)
    lowest = int(means.argmin())
    chosen = there[np.abs(size_of - lowest) <= SIDE]
    x, middle = np.log(points.parameters[chosen]), float(sizes[lowest])
    degree = min(2, len(np.unique(x)) - 1)
    parabola = np.zeros(3)
    parabola[2 - degree :] = np.polyfit(x - middle, points.losses[chosen], degree)
    best = np.nan if parabola[0] <= 0 else middle - parabola[1] / (2 * parabola[0])
    problem = _problem(sizes, lowest, best, float(x.min()), float(x.max()))
    tokens = np.polyfit(x - middle, np.log(points.tokens[chosen]), min(degree, 1))
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


def _problem(
    sizes: Float[Array, "s"], lowest: int, best: float, smallest: float, largest: float
) -> str | None:
    if len(sizes) < SIZES_OF_BUDGET:
        return f"it has {len(sizes)} sizes, and a minimum needs {SIZES_OF_BUDGET} or more"
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
    if not smallest <= best <= largest:
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
    scale = np.sqrt(used / max(used - 3 * len(valleys), 1))
    minima = []
    for each in valleys:
        x = np.log(points.parameters[each.chosen]) - each.middle
        fitted = np.polyval(each.parabola, x)
        thrown = (
            scale * (points.losses[each.chosen] - fitted) * signs[:, points.clusters[each.chosen]]
        )
        square, slope, level = np.linalg.pinv(np.vander(x, 3)) @ (fitted + thrown).T
        # A valley that noise would flatten out has its minimum at an end.
        best = np.where(square > 0, -slope / (2 * np.maximum(square, 1e-12)), np.sign(-slope) * 99)
        best = np.clip(best, x.min(), x.max())
        tokens = np.polyval(np.polyfit(x, np.log(points.tokens[each.chosen]), 1), best)
        loss = square * best**2 + slope * best + level
        minima.append((np.exp(best + each.middle), np.exp(tokens), np.maximum(loss, 1e-12)))
    return np.moveaxis(np.array(minima), 0, -1)
