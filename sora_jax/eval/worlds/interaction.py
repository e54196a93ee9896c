"""Whether a square does as it is told, and leaves its marks: control, and a world that stays
changed.

All is told from where the first frame shows the square and from the actions.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, UInt8

from sora_jax.eval.worlds.measure import Measure, Measures, moved, share
from sora_jax.world.painter import (
    ACTIONS,
    HOLD,
    MARK,
    SQUARE,
    Painter,
    path,
    square_cover,
)
from sora_jax.world.scene import HEADING
from sora_jax.world.unmix import find_mixed

CHANCE = 1 / len(ACTIONS)
AROUND = 1.5
"""Side of the area about the square that is not asked for marks, over the square's."""


@dataclasses.dataclass(frozen=True, eq=False)
class Walk:
    """Where the square is in each frame, nan where it is not found; and how far each pixel of the
    last frame is marked."""

    places: Float[np.ndarray, "t 2"]
    marks: Float[np.ndarray, "h w"]

    @property
    def found(self) -> Bool[np.ndarray, " t"]:
        return np.isfinite(self.places[:, 0])

    @property
    def ways(self) -> Float[np.ndarray, "t 2"]:
        """From where the first frame shows the square."""
        return self.places - self.places[0]


def measure(video: UInt8[np.ndarray, "t h w 3"], truth: Painter) -> Measures:
    """The metrics of a clip that should show the square follow the actions of this truth."""
    walk = follow(video, truth)
    expected = path(truth) - path(truth)[0]
    always = np.ones((truth.frames, 1), bool)
    motion = moved(walk.places[:, None], walk.found[:, None], path(truth)[:, None], always)
    gate = motion.score
    off = float(np.nan_to_num(np.linalg.norm(walk.ways - expected, axis=-1), nan=1.0).mean())
    usual = float(np.linalg.norm(expected, axis=-1).mean())
    recall, precision = _marks(walk, truth)
    kept = Measure(recall, 1.0, 0.0, gate)
    return {
        "moved": motion,
        "square_kept": Measure(share(walk.found), 1.0, 0.0, gate),
        "action_accuracy": Measure(_actions_right(walk, truth, 1), 1.0, CHANCE),
        "caption_facts": Measure(_actions_right(walk, truth, HOLD), 1.0, CHANCE),
        "path_error": Measure(off / usual if walk.found[0] else math.nan, 0.0, 1.0, gate),
        "mark_recall": kept,
        "mark_precision": Measure(precision, 1.0, 0.0, kept.score),
    }


def measure_pair(
    video: UInt8[np.ndarray, "t h w 3"],
    other_video: UInt8[np.ndarray, "t h w 3"],
    truth: Painter,
    other: Painter,
) -> Measures:
    """Of two clips made from the same noise and first frame under two strings of actions: how far
    the difference of their ways is from the one commanded, over the latter. What ignores its
    actions makes no difference, and scores 0."""
    walk, other_walk = follow(video, truth), follow(other_video, other)
    if not (walk.found[0] and other_walk.found[0]):
        return {"counterfactual_error": Measure(math.nan, 0.0, 1.0)}
    commanded = (path(truth) - path(truth)[0]) - (path(other) - path(other)[0])
    seen = np.nan_to_num(walk.ways - other_walk.ways)  # a lost square makes no difference either
    off = np.linalg.norm(seen - commanded, axis=-1).mean()
    error = float(off / np.linalg.norm(commanded, axis=-1).mean())
    return {"counterfactual_error": Measure(error, 0.0, 1.0)}


def follow(video: UInt8[np.ndarray, "t h w 3"], truth: Painter) -> Walk:
    """Find the square in each frame."""
    blobs, shares = find_mixed(video, (SQUARE, MARK))
    found = blobs.present(truth.side**2)[:, 0]
    return Walk(np.where(found[:, None], blobs.centroid[:, 0], np.nan), shares[-1, ..., 1])


def _actions_right(walk: Walk, truth: Painter, frames: int) -> float:
    """Share of stretches of so many frames in which the square goes as told: nearer to that way
    than to those of the other actions and to none. nan where it is never found."""
    if not walk.found.any():
        return math.nan
    starts = np.arange(0, truth.frames - 1, frames)
    ends = np.minimum(starts + frames, truth.frames - 1)
    ways = walk.places[ends] - walk.places[starts]
    choices = np.array([(0.0, 0.0), *(HEADING[action] for action in ACTIONS)])
    lengths = (ends - starts)[:, None, None] * truth.step
    off = np.linalg.norm(ways[:, None] - choices * lengths, axis=-1)
    done = np.where(np.isfinite(ways[:, 0]), np.nan_to_num(off).argmin(1), -1)
    told = [1 + ACTIONS.index(truth.actions[start // HOLD]) for start in starts]
    return share(done == told)


def _marks(walk: Walk, truth: Painter) -> tuple[float, float]:
    """Share of the pixels passed by that the last frame shows marked, and of the marked pixels that
    were passed by; nan without a start, and the latter without marks.

    Of a pixel passed by in part either is right.
    """
    if not walk.found[0]:
        return math.nan, math.nan
    x, y = walk.places[0].tolist()
    places = path(dataclasses.replace(truth, start=(x, y)))
    size = len(walk.marks)
    passed = square_cover(places[:-1], truth.side, size).max(0)
    away = square_cover(places[-1:], AROUND * truth.side, size)[0] == 0
    marked = walk.marks > 0.5
    return share(marked[(passed > 0.75) & away]), share(passed[marked & away] > 0.25)
