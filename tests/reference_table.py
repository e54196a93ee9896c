"""Metrics of true clips, and of the same clips with violations planted, to be asserted one by one.

A row is a way to spoil clips; it holds the measures of each clip against its unspoilt truth.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sora_jax.eval.worlds.measure import Measures
from sora_jax.world.splits import IN_DISTRIBUTION
from tests.violations import Violation

CLIPS = 24


@dataclasses.dataclass(frozen=True)
class Row:
    """The measures of each clip."""

    clips: Sequence[Measures]

    def asked(self, metric: str) -> int:
        """How many clips have the metric."""
        return sum(metric in clip for clip in self.clips)

    def coverage(self, metric: str) -> float:
        """Share of the clips asked in which it is defined."""
        return float(np.mean([clip[metric].defined for clip in self.clips if metric in clip]))

    def score(self, metric: str) -> float:
        """Mean score of the clips asked."""
        return float(np.mean([clip[metric].score for clip in self.clips if metric in clip]))

    def value(self, metric: str) -> float:
        """Median of the values, nan where none is defined."""
        values = [clip[metric].value for clip in self.clips if metric in clip]
        return float(np.nanmedian(values)) if np.isfinite(values).any() else float("nan")

    def metrics(self) -> list[str]:
        """All metrics that any clip has."""
        return list(dict.fromkeys(metric for clip in self.clips for metric in clip))


def table(
    world: Any,
    measure: Callable[[np.ndarray, Any], Measures],
    spoilt: Sequence[Violation] = (),
    planted: Mapping[str, Callable[[Any], Any]] | None = None,
    size: int = 64,
    frames: int = 32,
    fps: float = 16.0,
) -> dict[str, Row]:
    """A row for each violation of clips, by its function's name, and of truths, by its own."""
    clips: dict[str, list[Measures]] = {}
    for seed in range(CLIPS):
        truth = world.sample(seed, frames, fps, "train", IN_DISTRIBUTION)
        video = world.render(truth, size)
        for number, violation in enumerate(spoilt):
            changed = violation(video, np.random.default_rng((seed, number)))
            clips.setdefault(violation.__name__, []).append(measure(changed, truth))
        for name, change in (planted or {}).items():
            planted_clip = world.render(change(truth), size)
            clips.setdefault(name, []).append(measure(planted_clip, truth))
    return {name: Row(measured) for name, measured in clips.items()}
