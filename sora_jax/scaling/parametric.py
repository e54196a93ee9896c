"""The parametric scaling law: loss as a sum of powers of model and data, by a robust fit.

    L(N, D) = A / N**alpha + B / D**beta + E                                                  (1)

(Hoffmann et al. 2022, arXiv:2203.15556, equation 2). With r_i the logarithm of predicted over
observed loss of run i, the fit minimises

    sum_i huber(r_i), huber(r) = r**2 / 2 where |r| < d, else d (|r| - d / 2)                 (2)

with d = 1e-3; as d goes to 0 that is least absolute deviation, which is the fit that Besiroglu et
al. (arXiv:2404.10102) published. Sums, not means: a mean falls under the tolerance of common
minimisers before the minimum is near. Here the tolerance has no scale: iteratively reweighted least
squares with analytic gradients and the damping of Levenberg and Marquardt, where every step lowers
(2), until the next one promises less than 1e-12 of it. It takes many problems at once, and so
hundreds of starts and a thousand resamples cost seconds.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

Loss = Literal["huber", "lad"]
# Of (2). Least absolute deviation goes down to its own by steps: at once, it would stick.
DELTAS: dict[Loss, Sequence[float]] = {"huber": (1e-3,), "lad": (1e-3, 1e-4, 1e-5)}
NAMES = ("A", "B", "E", "alpha", "beta")
LOG_A, LOG_B, LOG_E, ALPHA, BETA = range(5)
TOLERANCE = 1e-12
# Of resamples and of starts before the best goes on: a hundredth of a standard error is enough.
ROUGHLY = 1e-7
LARGEST_STEPS = 300
CARRIED_ON = 8  # of the starts, the best ends
# How far above the best objective a start may end and still agree with it: of that, and a run, for
# runs without noise.
AGREEMENT, EXACT = 1e-3, 1e-7
# 95 % quantile of chi squared, one degree of freedom; and pi / 2 times, since the statistic below
# comes out so much larger where errors are normal. Measured on 400 such sweeps: without, 85 %.
QUANTILE = 3.841 * np.pi / 2


@dataclasses.dataclass(frozen=True)
class Runs:
    """Runs to fit (1) to, in logarithms; N and D about their means, where the fit is well posed."""

    model: Float[Array, "n"]
    data: Float[Array, "n"]
    loss: Float[Array, "n"]
    centre: tuple[float, float]

    @classmethod
    def of(
        cls, parameters: Float[Array, "n"], tokens: Float[Array, "n"], losses: Float[Array, "n"]
    ) -> "Runs":
        """From positive numbers."""
        model, data = np.log(parameters), np.log(tokens)
        centre = float(model.mean()), float(data.mean())
        return cls(model - centre[0], data - centre[1], np.log(losses), centre)

    def centred(self, theta: Float[Array, "*b 5"], sign: int = 1) -> Float[Array, "*b 5"]:
        """Logarithms of A and B as of N and D about their means; with sign -1 back again."""
        moved = theta.copy()
        moved[..., LOG_A] -= sign * theta[..., ALPHA] * self.centre[0]
        moved[..., LOG_B] -= sign * theta[..., BETA] * self.centre[1]
        return moved


def log_loss(
    theta: Float[Array, "b 5"], model: Float[Array, "n"], data: Float[Array, "n"]
) -> tuple[Float[Array, "b n"], Float[Array, "b 5 n"]]:
    """Logarithm of (1) at logarithms of N and D, and its derivatives by `theta`."""
    log_a, log_b, log_e, alpha, beta = theta.T[..., None]
    terms = (np.exp(log_a - alpha * model), np.exp(log_b - beta * data), np.exp(log_e))
    total = terms[0] + terms[1] + terms[2]
    slopes = np.empty((len(theta), 5, len(model)))
    for index, term in enumerate(terms):
        slopes[:, index] = term / total
    slopes[:, ALPHA] = -model * slopes[:, LOG_A]
    slopes[:, BETA] = -data * slopes[:, LOG_B]
    return np.log(total), slopes


def _objective(
    theta: Float[Array, "b 5"], runs: Runs, weights: Float[Array, "b n"], delta: float
) -> tuple[Float[Array, "b"], Float[Array, "b 5"], Float[Array, "b 5 5"]]:
    """(2) with runs weighted, its gradient, and the curvature of the parabola that touches it here
    and is above it."""
    # A step that leaves the range of numbers is not finite, and so no better than its start.
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        predicted, slopes = log_loss(theta, runs.model, runs.data)
        residuals = predicted - runs.loss
        size = np.abs(residuals)
        inside = np.minimum(size, delta)
        values = (weights * inside * (size - inside / 2)).sum(-1)
        steepness = weights * (delta / np.maximum(size, delta))
        weighted = slopes * steepness[:, None]
        gradient = (weighted @ residuals[..., None])[..., 0]
        return values, gradient, weighted @ np.swapaxes(slopes, -1, -2)


def minimise(
    runs: Runs,
    starts: Float[Array, "b 5"],
    loss: Loss,
    weights: Float[Array, "b n"] | None = None,
    fixed: Sequence[int] = (),
    tolerance: float = TOLERANCE,
) -> tuple[Float[Array, "b 5"], Float[Array, "b"]]:
    """The end of the descent from every start, and (2) there, in units of the last d.

    Args:
        runs: n of them.
        starts: (log A, log B, log E, alpha, beta), of centred N and D.
        loss: which d.
        weights: of each run for each start, as bootstraps draw them; else 1.
        fixed: positions in a start that stay as they are.
        tolerance: of a step's promised decrease, over the objective.
    """
    weights = np.ones((len(starts), len(runs.loss))) if weights is None else weights
    theta, values = starts.copy(), np.zeros(len(starts))
    for delta in DELTAS[loss]:
        values = _descend(runs, theta, weights, delta, fixed, tolerance) / delta
    return theta, values


def _descend(
    runs: Runs,
    theta: Float[Array, "b 5"],
    weights: Float[Array, "b n"],
    delta: float,
    fixed: Sequence[int],
    tolerance: float,
) -> Float[Array, "b"]:
    """Moves every row of `theta`, in place, downhill as far as it goes; returns (2) there."""
    active = np.arange(len(theta))
    values, gradient, curvature = _objective(theta, runs, weights, delta)
    damping = np.full(len(theta), 1e-3)
    final = values.copy()
    unit = np.eye(5)
    for _ in range(LARGEST_STEPS):
        scale = np.einsum("bpp->bp", curvature) + 1e-12
        system = curvature + damping[:, None, None] * scale[:, None, :] * unit
        for index in fixed:
            system[:, index], gradient[:, index] = unit[index], 0.0
        step = np.linalg.solve(system, gradient[..., None])[..., 0]
        promised = np.einsum("bp,bp->b", step, gradient)
        going = (promised > tolerance * values) & (damping < 1e8)
        active, step, damping = active[going], step[going], damping[going]
        if not len(active):
            break
        values, gradient, curvature = values[going], gradient[going], curvature[going]
        moved = theta[active] - step
        new = _objective(moved, runs, weights[active], delta)
        better = new[0] < values
        theta[active[better]] = moved[better]
        damping = np.where(better, np.maximum(damping / 5, 1e-12), damping * 8)
        values = np.where(better, new[0], values)
        gradient = np.where(better[:, None], new[1], gradient)
        curvature = np.where(better[:, None, None], new[2], curvature)
        final[active] = values
    return final


def grid_of_starts(runs: Runs) -> Float[Array, "s 5"]:
    """240 laws that go through the middle of the runs, with all sorts of floors and exponents."""
    lowest, middle = np.exp(runs.loss.min()), np.exp(np.median(runs.loss))
    starts = []
    for floor, share, alpha, beta in itertools.product(
        (0.02, 0.2, 0.45, 0.7, 0.95), (0.2, 0.5, 0.8), (0.1, 0.3, 0.6, 1.0), (0.1, 0.3, 0.6, 1.0)
    ):
        above = middle - floor * lowest
        parts = (share * above, (1 - share) * above, floor * lowest)
        starts.append((*np.log(parts), alpha, beta))
    return np.array(starts)


@dataclasses.dataclass(frozen=True)
class ParametricFit:
    """(1) fitted: `theta` is (log A, log B, log E, alpha, beta), and `draws` as many of resamples.

    Attributes:
        agreeing: share of the starts that ended within 0.1 % of the best objective.
        residuals: logarithm of predicted over observed loss, a run.
        floor: values of E that the runs do not speak against, by profile likelihood, 95 %.
    """

    theta: Float[Array, "5"]
    draws: Float[Array, "r 5"]
    objective: float
    agreeing: float
    residuals: Float[Array, "n"]
    floor: tuple[float, float]


def best_law(runs: Runs, loss: Loss) -> tuple[Float[Array, "5"], float, float]:
    """(1) fitted from many starts, with N and D centred; (2) over d; the share of starts that end,
    by Huber, within 0.1 % of the best."""
    ends, values = minimise(runs, grid_of_starts(runs), "huber", tolerance=ROUGHLY)
    enough = values.min() * (1 + AGREEMENT) + EXACT * len(runs.loss)
    agreeing = float(np.mean(values <= enough))
    # Least absolute deviation has a kink at every run: it goes on from the bottoms of Huber's loss.
    ends, values = minimise(runs, ends[np.argsort(values)[:CARRIED_ON]], loss)
    best, value = ends[values.argmin()], values.min()
    if loss == "lad":
        best, value = _least_deviation(runs, best)
    return best, float(value), agreeing


def fit_parametric(
    parameters: Float[Array, "n"],
    tokens: Float[Array, "n"],
    losses: Float[Array, "n"],
    clusters: Int[Array, "n"],
    loss: Loss,
    resamples: int,
    seed: int = 0,
) -> ParametricFit:
    """Fits (1) from many starts, and again from the best of them to resampled clusters of runs."""
    runs = Runs.of(parameters, tokens, losses)
    best, value, agreeing = best_law(runs, loss)
    weights = cluster_weights(clusters, resamples, seed)
    draws, _ = minimise(runs, np.tile(best, (resamples, 1)), loss, weights, tolerance=ROUGHLY)
    residuals = log_loss(best[None], runs.model, runs.data)[0][0] - runs.loss
    floor = floor_profile(runs, best)
    back = runs.centred(best, -1), runs.centred(draws, -1)
    return ParametricFit(*back, value, agreeing, residuals, floor)


def _least_deviation(runs: Runs, theta: Float[Array, "5"]) -> tuple[Float[Array, "5"], float]:
    """The least sum of |r| from close by, where as many runs as there are parameters are met
    exactly: by linear programs on the tangent."""
    from scipy.optimize import linprog

    number = len(runs.loss)
    # Of a step d and sizes t: t >= r + J d and t >= -(r + J d), with the least sum of t.
    costs, bounds = np.r_[np.zeros(5), np.ones(number)], [(None, None)] * 5 + [(0, None)] * number
    value = np.inf
    for _ in range(20):
        predicted, slopes = log_loss(theta[None], runs.model, runs.data)
        residuals, jacobian = predicted[0] - runs.loss, slopes[0].T
        if np.abs(residuals).sum() > value * (1 - 1e-12):
            break
        kept, value = theta, float(np.abs(residuals).sum())
        sides = np.block([[jacobian, -np.eye(number)], [-jacobian, -np.eye(number)]])
        found = linprog(costs, sides, np.r_[-residuals, residuals], bounds=bounds)
        if not found.success:
            break
        theta = theta + found.x[:5]
    return kept, value


def cluster_weights(clusters: Int[Array, "n"], resamples: int, seed: int) -> Float[Array, "r n"]:
    """How often each run stands in each resample: clusters are drawn with replacement, and the runs
    of one stay together (clusters are numbered from 0)."""
    number = int(clusters.max()) + 1
    counts = np.random.default_rng(seed).multinomial(number, np.full(number, 1 / number), resamples)
    return counts[:, clusters].astype(float)


def floor_profile(runs: Runs, best: Float[Array, "5"]) -> tuple[float, float]:
    """Floors E at which the best law's likelihood is not significantly below the best of all, 95 %,
    were the residuals Laplace's of a common scale, as least absolute deviation has it: those where
    2 n log(sum |r| / least sum |r|) is below `QUANTILE`.

    The lower end is 0 where a law without a floor does as well.
    """
    lowest, middle = np.exp(runs.loss.min()), np.exp(np.median(runs.loss))
    floors = np.linspace(0.02, 1.3, 65) * lowest
    starts = np.tile(best, (len(floors), 1))
    # What a floor gives or takes, both terms share.
    starts[:, [LOG_A, LOG_B]] += np.log(
        (middle - np.minimum(floors, 0.98 * middle)) / (middle - np.exp(best[LOG_E]))
    )[:, None]
    starts[:, LOG_E] = np.log(floors)
    _, values = minimise(runs, starts, "lad", fixed=[LOG_E], tolerance=ROUGHLY)
    _, (least,) = minimise(runs, best[None], "lad")
    least = min(least, values.min())
    # Its signed root is near a line, so that a coarse grid gives the ends well.
    root = np.sqrt(2 * len(runs.loss) * np.log(values / least))
    above = floors > np.exp(best[LOG_E])
    ends = [
        float(
            np.interp(
                np.sqrt(QUANTILE),
                [0.0, *root[side][::step]],
                [np.exp(best[LOG_E]), *floors[side][::step]],
            )
        )
        for side, step in ((~above, -1), (above, 1))
    ]
    return (0.0 if root[0] <= np.sqrt(QUANTILE) else ends[0]), ends[1]


def numbers(theta: Float[Array, "*b 5"]) -> dict[str, Float[Array, "*b"]]:
    """A, B, E, alpha, beta, and a = beta / (alpha + beta): the best N goes as the FLOPs to the a,
    where FLOPs are in proportion to N D."""
    alpha, beta = theta[..., ALPHA], theta[..., BETA]
    with np.errstate(over="ignore"):  # draws may have no bound
        first = np.moveaxis(np.exp(theta[..., :3]), -1, 0)
    values = dict(zip(NAMES, (*first, alpha, beta), strict=True))
    return values | {"a": beta / (alpha + beta)}
