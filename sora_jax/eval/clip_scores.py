"""Scores clip by clip: what they come to over clips, how sure that is, and how two models differ.

A score has a value of each clip, and how much it counts: 0 where it was not asked of the clip. What
it comes to is the weighted mean v = sum w v / sum w, so shares of questions, of which clips are
asked different numbers, are scores as well.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from sora_jax.config import ConfigError

BOOTSTRAPS = 1_000
TAIL = 0.025  # on each side of an interval of 95 %


@dataclasses.dataclass(frozen=True)
class Score:
    """Of n clips: each one's value, finite where it counts, and its weight."""

    values: Float[np.ndarray, " n"]
    weights: Float[np.ndarray, " n"]

    def mean(self) -> float:
        """The weighted mean; nan where nothing counts."""
        return float(_ratio((self.weights * self._filled()).sum(), self.weights.sum()))

    def standard_error(self) -> float:
        """Of the mean, over clips, to first order (the delta method for a ratio); 0 of a single
        clip, which says nothing of others."""
        count = len(self.values)
        if count < 2:
            return 0.0
        off = self.weights * (self._filled() - self.mean())
        spread = np.sqrt(np.square(off).sum() * count / (count - 1))
        return float(_ratio(spread, self.weights.sum()))

    def interval(self) -> tuple[float, float]:
        """A 95 % bootstrap interval of the mean, over clips; the same draws whenever it is asked,
        and those of any score of as many clips."""
        return _interval(self.resampled())

    def resampled(self) -> Float[np.ndarray, " draws"]:
        """Means of BOOTSTRAPS draws of as many clips, with replacement; nan of a draw without a
        clip that counts."""
        count = len(self.values)
        draws = np.random.default_rng(0).integers(count, size=(BOOTSTRAPS, count))
        total = (self.weights * self._filled())[draws].sum(1)
        return _ratio(total, self.weights[draws].sum(1))

    def _filled(self) -> Float[np.ndarray, " n"]:
        """Values with 0 where they do not count and may be anything."""
        return np.where(self.weights > 0, self.values, 0.0)


ClipScores = Mapping[str, Score]
"""By name, of the same clips."""


@dataclasses.dataclass(frozen=True)
class Difference:
    """How much higher a score of one model is than another's on the same clips: its mean, standard
    error and 95 % interval, and what the error would be if clips were not paired."""

    mean: float
    standard_error: float
    low: float
    high: float
    unpaired_error: float


def of_values(values: Iterable[float]) -> Score:
    """A score that counts the same in every clip."""
    array = np.asarray(list(values), np.float64)
    return Score(array, np.ones_like(array))


def prefixed(prefix: str, scores: ClipScores) -> dict[str, Score]:
    return {f"{prefix}{name}": score for name, score in scores.items()}


def summary(scores: ClipScores) -> dict[str, float]:
    """`NAME`, `NAME/low` and `NAME/high` of each score that counts anywhere."""
    metrics: dict[str, float] = {}
    for name, score in scores.items():
        if score.weights.any():
            low, high = score.interval()
            metrics |= {name: score.mean(), f"{name}/low": low, f"{name}/high": high}
    return metrics


def joined(parts: Sequence[ClipScores]) -> dict[str, Score]:
    """Of the clips of all parts, in their order. A score that a part lacks was not asked there."""
    names = dict.fromkeys(name for part in parts for name in part)
    counts = [len(next(iter(part.values())).values) if part else 0 for part in parts]

    def whole(name: str) -> Score:
        each = [
            part.get(name, Score(np.zeros(count), np.zeros(count)))
            for part, count in zip(parts, counts, strict=True)
        ]
        return Score(
            np.concatenate([score.values for score in each]),
            np.concatenate([score.weights for score in each]),
        )

    return {name: whole(name) for name in names}


def difference(one: Score, other: Score) -> Difference:
    """Of `one` to `other`, clip by clip.

    Raises:
        ConfigError: they are of different numbers of clips or questions, or of fewer than two.
    """
    if one.values.shape != other.values.shape or not np.array_equal(one.weights, other.weights):
        raise ConfigError("scores to be compared are of different clips: evaluate both on one set")
    if len(one.values) < 2:
        raise ConfigError("scores of fewer than two clips have no standard error")
    paired = Score(one._filled() - other._filled(), one.weights)
    low, high = paired.interval()
    unpaired = np.hypot(one.standard_error(), other.standard_error())
    return Difference(paired.mean(), paired.standard_error(), low, high, float(unpaired))


def _interval(draws: Float[np.ndarray, " draws"]) -> tuple[float, float]:
    # A draw that happens to hold no clip that counts says nothing.
    return float(np.nanquantile(draws, TAIL)), float(np.nanquantile(draws, 1 - TAIL))


def _ratio(total: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """total / weights, nan where nothing counts."""
    return np.where(weights > 0, total / np.where(weights > 0, weights, 1), np.nan)
