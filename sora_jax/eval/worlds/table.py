"""Scores of a world's clips beside those of the truth, of the truth through the autoencoder, and of
what takes no model: a frozen frame, noise, and the nearest training clip.

A clip recalled from training keeps the laws of its world, and is told by its caption and by the
distances of `memorisation`.

A mean score is placed between the better of frozen frame and noise, which is 0, and the truth
through the autoencoder, which is 1. Intervals are 95 % bootstrap intervals over clips; a column is
drawn together with those it is compared with.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Float, UInt8

from sora_jax.eval.world_state import frozen
from sora_jax.eval.worlds import interaction, parallax, permanence, physics, rigidity
from sora_jax.eval.worlds.measure import Measures

Column = Literal["truth", "truth_vae", "frozen", "noise", "nearest_train", "model"]
COLUMNS: tuple[Column, ...] = get_args(Column)
_MEASURE: dict[str, Callable[[UInt8[np.ndarray, "t h w 3"], Any], Measures]] = {
    "bounce": physics.measure,
    "occluder": permanence.measure,
    "pan": parallax.measure,
    "cube": rigidity.measure,
    "painter": interaction.measure,
}
COMPOSITE = "composite"
MOTION = "moved"  # which counts as a gate of the others, and not once more by itself
BOOTSTRAPS = 1_000
LEAST_ROOM = 0.05
"""Scores of truth and floor that lie nearer than this leave nothing to place a model in."""


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
    """Values and scores of clips by metric; the last metric is the composite, each clip's mean
    score of all but motion. A value is nan where undefined, a score where the truth gives no
    occasion."""

    metrics: tuple[str, ...]
    values: Float[np.ndarray, "clips metrics"]
    scores: Float[np.ndarray, "clips metrics"]

    @property
    def asked(self) -> np.ndarray:
        """bool [clips, metrics]: where the truth gives the occasion."""
        return np.isfinite(self.scores)


@dataclasses.dataclass(frozen=True)
class Entry:
    """One metric in one column: the mean score, the share of the clips asked in which there is a
    value at all, the median value, and the score's place between floor and ceiling; nan where
    these leave no room. Pairs are 95 % intervals."""

    metric: str
    column: Column
    score: float
    score_interval: tuple[float, float]
    coverage: float
    median: float
    scaled: float
    scaled_interval: tuple[float, float]


def measure(world: str, video: UInt8[np.ndarray, "t h w 3"], truth: Any) -> Measures:
    """The metrics of a clip of the world of this name against its truth.

    Raises ValueError for a clip of other frames than the truth, not square, or not uint8.
    """
    frames, height, width = video.shape[:3]
    if video.dtype != np.uint8 or (frames, height) != (truth.frames, width):
        raise ValueError(
            f"{world}: a {video.dtype} clip of shape {video.shape}: give uint8 [{truth.frames}, h,"
            " h, 3], the frames of its truth, square"
        )
    return _MEASURE[world](video, truth)


def score_columns(
    world: str,
    truths: Sequence[Any],
    videos: Mapping[Column, Sequence[UInt8[np.ndarray, "t h w 3"]]],
    metrics: Sequence[str] = (),
    seed: int = 0,
) -> dict[Column, Scores]:
    """The scores of clips of each column against the same truths; frozen frames and noise, of a
    seed, are made from the true clips, which `videos` must hold. `metrics`: as of `collect`.

    Raises ValueError as `measure` does, and for a column of more or fewer clips than truths.
    """
    rng = np.random.default_rng(seed)
    true = videos["truth"]
    every: dict[Column, Sequence[UInt8[np.ndarray, "t h w 3"]]] = {
        "frozen": [frozen(video) for video in true],
        "noise": [rng.integers(0, 256, video.shape, np.uint8) for video in true],
        **videos,
    }
    return {
        column: collect([measure(world, *e) for e in zip(shown, truths, strict=True)], metrics)
        for column, shown in every.items()
    }


def collect(clips: Sequence[Measures], metrics: Sequence[str] = ()) -> Scores:
    """The measures of clips as arrays. `metrics`: in this order, also such as none of these clips
    gives occasion for; of none, those that the clips have.

    Raises ValueError without clips.
    """
    if not clips:
        raise ValueError("a table of no clips: give at least one")
    metrics = list(metrics or dict.fromkeys(metric for clip in clips for metric in clip))
    values = np.full((len(clips), len(metrics) + 1), np.nan)
    scores = values.copy()
    for row, clip in enumerate(clips):
        for metric, measured in clip.items():
            values[row, metrics.index(metric)] = measured.value
            scores[row, metrics.index(metric)] = measured.score
        own = [measured.score for metric, measured in clip.items() if metric != MOTION]
        scores[row, -1] = np.mean(own)
    values[:, -1] = scores[:, -1]
    return Scores((*metrics, COMPOSITE), values, scores)


def tabulate(columns: Mapping[Column, Scores], seed: int = 0) -> list[Entry]:
    """All metrics in all columns, of the same clips in the same order.

    Raises ValueError where a column that the scale needs is missing, and where columns are of other
    clips or metrics.
    """
    missing = {"truth", "truth_vae", "frozen", "noise"} - set(columns)
    if missing:
        raise ValueError(f"a table without {', '.join(sorted(missing))}: give these columns too")
    truth = columns["truth"]
    for name, scores in columns.items():
        same = scores.metrics == truth.metrics and np.array_equal(scores.asked, truth.asked)
        if not same:
            raise ValueError(f"the column {name} is not of the same clips as the truth")
    clips = len(truth.scores)
    draws = np.random.default_rng(seed).integers(clips, size=(BOOTSTRAPS, clips))
    everything = np.arange(clips)[None]
    means = {name: _means(scores, everything)[0] for name, scores in columns.items()}
    drawn = {name: _means(scores, draws) for name, scores in columns.items()}
    scaled, drawn_scaled = _scale(means), _scale(drawn)
    return [
        Entry(
            metric,
            name,
            float(means[name][number]),
            _interval(drawn[name][:, number]),
            float(np.isfinite(scores.values[scores.asked[:, number], number]).mean()),
            _median(scores.values[scores.asked[:, number], number]),
            float(scaled[name][number]),
            _interval(drawn_scaled[name][:, number]),
        )
        for number, metric in enumerate(truth.metrics)
        for name, scores in columns.items()
    ]


def _means(scores: Scores, draws: np.ndarray) -> Float[np.ndarray, "draws metrics"]:
    """Mean score of the clips of each draw [draws, n]; nan of a draw of none that was asked."""
    times = np.apply_along_axis(np.bincount, 1, draws, minlength=len(scores.scores))
    total = times @ np.nan_to_num(scores.scores)
    asked = times @ scores.asked.astype(float)
    return np.where(asked > 0, total / np.maximum(asked, 1), np.nan)


def _scale(means: Mapping[Column, np.ndarray]) -> dict[Column, np.ndarray]:
    """Each column's place between the better of frozen and noise and the truth through the
    autoencoder, cut to 0 and 1."""
    floor = np.maximum(means["frozen"], means["noise"])
    room = means["truth_vae"] - floor
    room = np.where(room > LEAST_ROOM, room, np.nan)
    return {name: np.clip((mean - floor) / room, 0, 1) for name, mean in means.items()}


def _interval(draws: np.ndarray) -> tuple[float, float]:
    known = draws[np.isfinite(draws)]
    if not known.size:
        return float("nan"), float("nan")
    low, high = np.quantile(known, (0.025, 0.975))
    return float(low), float(high)


def _median(values: np.ndarray) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else float("nan")
