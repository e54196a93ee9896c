"""Learning rates and batches that were tried on one size and budget: the best, and its joint law.

The law is that of Yin et al. 2024 (arXiv:2411.17470), a power of tokens and of parameters.
"""

import dataclasses
from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

import numpy as np
from jaxtyping import Float
from numpy import ndarray as Array

from sora_jax.scaling.power_laws import PowerLaw, fit_power_law
from sora_jax.scaling.records import RunRecord

Setting = Literal["batch_tokens", "peak_rate"]
SETTINGS_OF_BASIN = 3
# Basins of a joint law beyond its three numbers, and how far apart tokens and parameters must vary.
SPARE_BASINS = 1
LARGEST_CONDITION = 30.0


@dataclasses.dataclass(frozen=True)
class Basin:
    """Lowest losses of a size and budget by one setting, rising; `best` is where a parabola through
    the lowest three has its minimum, None where these do not bracket it."""

    setting: Setting
    parameters: float
    tokens: float
    tried: Float[Array, "s"]
    losses: Float[Array, "s"]
    best: float | None


def basins_of(records: Sequence[RunRecord], setting: Setting) -> list[Basin]:
    """Of all sizes and budgets at which three or more values of a setting were trained to the end;
    over other settings the lowest loss counts, over seeds the mean."""
    cells: dict[tuple[int, float], list[RunRecord]] = defaultdict(list)
    for each in records:
        if each.status == "done" and getattr(each, setting) is not None:
            cells[each.parameters, each.budget or each.flops].append(each)
    found = []
    for (parameters, _), runs in sorted(cells.items()):
        losses: dict[float, dict[object, list[float]]] = defaultdict(lambda: defaultdict(list))
        for each in runs:
            others = (each.batch_tokens, each.peak_rate, each.rule)
            losses[getattr(each, setting)][others].append(each.loss or 0.0)
        if len(losses) < SETTINGS_OF_BASIN:
            continue
        tried = np.array(sorted(losses))
        lowest = np.array([min(map(np.mean, losses[value].values())) for value in tried.tolist()])
        tokens = float(np.median([each.tokens for each in runs]))
        best = _minimum(np.log(tried), lowest)
        found.append(Basin(setting, float(parameters), tokens, tried, lowest, best))
    return found


def _minimum(x: Float[Array, "s"], losses: Float[Array, "s"]) -> float | None:
    lowest = int(losses.argmin())
    if lowest in (0, len(losses) - 1):
        return None
    about = slice(lowest - 1, lowest + 2)
    square, slope, _ = np.polyfit(x[about] - x[lowest], losses[about], 2)
    return (
        float(np.exp(x[lowest] - slope / (2 * square))) if square > 0 else float(np.exp(x[lowest]))
    )


def law_of_basins(
    basins: Sequence[Basin], rng: np.random.Generator, resamples: int
) -> PowerLaw | None:
    """The best setting as a power of tokens and parameters, None where the basins are too few or
    vary too little to tell these apart."""
    bottoms = [each for each in basins if each.best is not None]
    best = np.array([each.best for each in bottoms], float)
    return _joint(
        np.array([each.tokens for each in bottoms]),
        np.array([each.parameters for each in bottoms]),
        best,
        rng,
        resamples,
    )


def law_of_use(
    records: Sequence[RunRecord], setting: Setting, rng: np.random.Generator, resamples: int
) -> PowerLaw | None:
    """The setting that runs were given, as such a law: what the rule of the sweep goes on to."""
    known = [each for each in records if getattr(each, setting) is not None]
    values = np.array([getattr(each, setting) for each in known], float)
    tokens = np.array([each.tokens for each in known], float)
    return _joint(
        tokens, np.array([each.parameters for each in known], float), values, rng, resamples
    )


def _joint(
    tokens: Float[Array, "n"],
    parameters: Float[Array, "n"],
    values: Float[Array, "n"],
    rng: np.random.Generator,
    resamples: int,
) -> PowerLaw | None:
    if len(values) < 3 + SPARE_BASINS:
        return None
    logs = [np.log(tokens) - np.log(tokens).mean(), np.log(parameters) - np.log(parameters).mean()]
    if np.linalg.cond(np.stack(logs, -1)) > LARGEST_CONDITION:
        return None
    return fit_power_law({"tokens": tokens, "parameters": parameters}, values, rng, resamples)
