"""The envelope: the runs that nothing of as few FLOPs beats, and how their size grows with FLOPs.

(Approach 1 of Hoffmann et al. 2022, arXiv:2203.15556, on final losses.) It takes sizes as they are,
so it is coarse where sizes are few; its worth is that it asks for no valley and no formula.
"""

import dataclasses

import numpy as np
from jaxtyping import Float, Int
from numpy import ndarray as Array

from sora_jax.scaling.parametric import cluster_weights
from sora_jax.scaling.points import Points
from sora_jax.scaling.power_laws import PowerLaw

RUNS_OF_LAW = 4


@dataclasses.dataclass(frozen=True)
class Envelope:
    """`runs`: positions of the best runs, in the order of FLOPs; `parameters`: the law of N."""

    runs: Int[Array, "k"]
    parameters: PowerLaw


def fit_envelope(points: Points, resamples: int, seed: int = 0) -> Envelope | None:
    """A line through the best runs, and through the best of resampled clusters; None where they are
    fewer than four."""
    bins = np.where(np.isfinite(points.budgets), np.log2(points.budgets), np.log2(points.flops))
    bins = np.unique(np.round(2 * bins), return_inverse=True)[1]
    flops, parameters = np.log(points.flops), np.log(points.parameters)
    centre = float(flops.mean())

    def line(weights: Float[Array, "n"]) -> Float[Array, "2"] | None:
        best = best_runs(np.where(weights > 0, points.losses, np.inf), bins)
        if len(best) < RUNS_OF_LAW:
            return None
        return np.polyfit(flops[best] - centre, parameters[best], 1)[::-1]

    found = line(np.ones(len(bins)))
    if found is None:
        return None
    weights = cluster_weights(points.clusters, resamples, seed)
    draws = np.array([other for each in weights if (other := line(each)) is not None])
    runs = best_runs(points.losses, bins)
    scatter = float((parameters[runs] - found[0] - found[1] * (flops[runs] - centre)).std(ddof=2))
    law = PowerLaw(("flops",), np.array([centre]), found, draws, scatter, "resampled runs")
    return Envelope(runs, law)


def best_runs(losses: Float[Array, "n"], bins: Int[Array, "n"]) -> Int[Array, "k"]:
    """Of each bin of FLOPs, half an octave wide, the run of the lowest loss, if no smaller bin has
    a lower one."""
    order = np.lexsort((losses, bins))
    first = order[np.unique(bins[order], return_index=True)[1]]
    before = np.r_[np.inf, np.minimum.accumulate(losses[first])[:-1]]
    return first[losses[first] < before]
