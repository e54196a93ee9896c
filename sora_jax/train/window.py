"""Means of a run's metrics over the steps since its last log."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sora_jax.types import Drawn

LARGEST, LAST, COUNTED = "gradient_norm", "learning_rate", "skipped"
PAIR = re.compile(r"(.+)/(sum|weight)")


class Window:
    """Adds up the metrics of steps and gives their means, over all that came since it was emptied.

    Every micro-batch counts the same, whatever its rows, its bucket and the step it is of, as it
    does in the update. So a mean over the window is the mean of what was minimised, and differs
    from a mean over clips where buckets have batches of different sizes.

    Metrics called X/sum and X/weight come as X, the ratio of their sums. With an axis of bins
    behind that of micro-batches they are of equal bins of [0, 1], and come as X_0.2-0.4 and so on,
    where the bin has any weight.

    Of a skipped step nothing but the count is taken: its losses may be no numbers.
    """

    def __init__(self) -> None:
        self._sums: dict[str, list[float]] = {}  # of a bin each; one of what has none
        self._counts: dict[str, int] = {}
        self._largest: float | None = None
        self._last: float | None = None
        self._skipped = 0

    def add(self, metrics: Mapping[str, np.ndarray], drawn: Sequence[Drawn]) -> None:
        """A step's metrics, [micro_batches] or [micro_batches, bins], and what each of its
        micro-batches was drawn from."""
        if LAST in metrics:
            self._last = float(metrics[LAST])
        if metrics.get(COUNTED):
            self._skipped += 1
            return
        for name, value in metrics.items():
            if name not in (LAST, COUNTED):
                for of_micro_batch in np.atleast_1d(np.asarray(value, np.float64)):
                    self._count(name, np.atleast_1d(of_micro_batch))
        for one, loss in zip(drawn, np.asarray(metrics["loss"], np.float64), strict=True):
            self._count(f"loss/{one.bucket}", np.atleast_1d(loss))
        if LARGEST in metrics:
            norm = float(metrics[LARGEST])
            self._largest = norm if self._largest is None else max(norm, self._largest)

    def _count(self, name: str, values: np.ndarray) -> None:
        before = self._sums.get(name, [0.0] * len(values))
        self._sums[name] = [old + float(new) for old, new in zip(before, values, strict=True)]
        self._counts[name] = self._counts.get(name, 0) + 1

    def close(self) -> dict[str, float]:
        """The means, and `skipped`: how many steps were. Empties the window."""
        values: dict[str, float] = {}
        for name, sums in self._sums.items():
            pair = PAIR.fullmatch(name)
            if pair is None:
                values[name] = sums[0] / self._counts[name]
            elif pair[2] == "sum":
                values |= _ratios(pair[1], sums, self._sums[f"{pair[1]}/weight"])
        if self._largest is not None:
            values[f"{LARGEST}/max"] = self._largest
        if self._last is not None:
            values[LAST] = self._last
        values[COUNTED] = float(self._skipped)
        self.restore(Window().state())
        return values

    def state(self) -> dict[str, Any]:
        """What `restore` takes, through JSON too without losing a bit."""
        return {
            "sums": {name: list(sums) for name, sums in self._sums.items()},
            "counts": dict(self._counts),
            "largest": self._largest,
            "last": self._last,
            "skipped": self._skipped,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes on from where `state` was called."""
        self._sums = {name: list(map(float, sums)) for name, sums in state["sums"].items()}
        self._counts = dict(state["counts"])
        self._largest, self._last = state["largest"], state["last"]
        self._skipped = state["skipped"]


def _ratios(name: str, sums: Sequence[float], weights: Sequence[float]) -> dict[str, float]:
    bins = len(sums)
    if bins == 1:
        return {name: sums[0] / weights[0]} if weights[0] else {}
    return {
        f"{name}_{k / bins:.3g}-{(k + 1) / bins:.3g}": sums[k] / weights[k]
        for k in range(bins)
        if weights[k]
    }
