"""One metric of one clip: its value, whether there is one, and how right it is."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True)
class Measure:
    """A value read from pixels, nan where the pixels show none.

    `ideal` is the value of a true clip and `worst` one at which nothing of it is left. `gate`, from
    0 to 1, is how much the clip does at all of what the metric judges: a frozen frame loses no
    object, so that it counts for nothing that none got lost.
    """

    value: float
    ideal: float
    worst: float
    gate: float = 1.0

    @property
    def defined(self) -> bool:
        """Whether the clip shows what is measured."""
        return math.isfinite(self.value)

    @property
    def score(self) -> float:
        """1 at the ideal, falling evenly to 0 at the worst and as far to its other side, times the
        gate; 0 where undefined."""
        if not self.defined:
            return 0.0
        off = abs(self.value - self.ideal) / abs(self.worst - self.ideal)
        return self.gate * max(0.0, 1.0 - off)


Measures = dict[str, Measure]
"""By name of the metric; without those that the true clip gives no occasion for."""


def share(right: np.ndarray | Iterable[bool]) -> float:
    """Share of true among booleans, nan of none."""
    answers = np.asarray(right if isinstance(right, np.ndarray) else list(right), bool)
    return float(answers.mean()) if answers.size else math.nan


def median(values: np.ndarray, least: int = 1) -> float:
    """The median, nan of fewer than `least` values."""
    return float(np.median(values)) if len(values) >= least else math.nan


def travel(track: Float[np.ndarray, "t k 2"], seen: Bool[np.ndarray, "t k"]) -> float:
    """How far things go: the root mean square distance from the middles of their own tracks, which
    a little jitter hardly adds to; nan where nothing is seen."""
    off = centred(track, seen)[seen]
    return float(np.sqrt((off**2).sum(-1).mean())) if len(off) else math.nan


def centred(
    track: Float[np.ndarray, "t k 2"], seen: Bool[np.ndarray, "t k"]
) -> Float[np.ndarray, "t k 2"]:
    """Tracks about their own means over the frames that show them; nan elsewhere."""
    # From the first place seen, so that of no motion at all the mean is exact.
    way = np.where(seen[..., None], track - track[seen.argmax(0), np.arange(seen.shape[1])], 0.0)
    mean = way.sum(0) / np.maximum(seen.sum(0), 1)[:, None]
    return np.where(seen[..., None], way - mean, np.nan)


def moved(
    track: Float[np.ndarray, "t k 2"],
    seen: Bool[np.ndarray, "t k"],
    true_track: Float[np.ndarray, "t k 2"],
    due: Bool[np.ndarray, "t k"],
) -> Measure:
    """How far things go, over how far they should; farther is as good."""
    reached = travel(track, seen) / travel(true_track, due)
    return Measure(min(reached, 1.0) if math.isfinite(reached) else math.nan, ideal=1.0, worst=0.0)
