"""One metric of one clip: its value, whether there is one, and how right it is."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np


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


def moved(travel: float, true_travel: float) -> Measure:
    """How far things go, over how far they should; farther is as good."""
    reached = min(travel / true_travel, 1.0) if math.isfinite(travel) else math.nan
    return Measure(reached, ideal=1.0, worst=0.0)
