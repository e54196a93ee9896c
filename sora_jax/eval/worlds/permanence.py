"""Whether a shape that passes behind a bar comes out again: in place, in time, and the same.

What is expected starts from where the first frame shows the shape, so that clips made from text
alone are judged by their own start.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Bool, Float, UInt8

from sora_jax.eval.worlds.measure import Measure, Measures, moved, share
from sora_jax.world.decode import shape_errors
from sora_jax.world.occluder import (
    BAR,
    COLOURS,
    HEADING,
    SHAPES,
    Occluder,
    hidden,
    in_the_open,
    places,
    shown_after,
    speed_of,
)
from sora_jax.world.scene import Shape
from sora_jax.world.segment import Blob
from sora_jax.world.unmix import amounts, find

TOLERANCE = 0.05
"""World units by which the shape may miss its place."""
ROUNDING = 0.002
"""World units by which places are misread."""
TRACE = 0.2
"""Share of the area of a shape above which it, or another in its stead, is to be seen."""
WORST_DELAY = 0.25
"""Of the time of the clip, early or late."""


@dataclasses.dataclass(frozen=True, eq=False)
class Sight:
    """What a clip shows of the shape: its place (x, y), whether it is whole, and its pixels'
    share of its area; the largest share of another colour; and the clip for a closer look."""

    video: UInt8[np.ndarray, "t h w 3"]
    place: Float[np.ndarray, "t 2"]
    whole: Bool[np.ndarray, " t"]
    share: Float[np.ndarray, " t"]
    others: Float[np.ndarray, " t"]


def measure(video: UInt8[np.ndarray, "t h w 3"], truth: Occluder) -> Measures:
    """The metrics of a clip that should show this truth."""
    sight = look(video, truth)
    motion = _moved(sight, truth)
    if sight.whole[0]:
        x, y = sight.place[0].tolist()
        expected = dataclasses.replace(truth, start=(x, y))
        recall, delay = _reemergence(sight, expected)
        concealed = share(sight.share[hidden(expected)] < TRACE)
        identity = _identity(sight, expected)
        told = _facts_right(sight, truth)
    else:
        recall = delay = concealed = identity = told = math.nan
    came_out = Measure(recall, 1.0, 0.0)
    return {
        "moved": motion,
        "reemergence": came_out,
        "delay": Measure(delay, 0.0, WORST_DELAY, came_out.score),
        "concealed": Measure(concealed, 1.0, 0.0, came_out.score),
        "identity": Measure(identity, 1.0, 0.0, came_out.score),
        "caption_facts": Measure(told, 1.0, 0.0, motion.score),
    }


def look(video: UInt8[np.ndarray, "t h w 3"], truth: Occluder) -> Sight:
    """Find the shape, and any of another colour. White is none: the bar reads as half of it."""
    blobs = find(video, COLOURS)
    own, area = COLOURS.index(truth.colour), math.pi * truth.radius**2
    return Sight(
        video,
        blobs.centroid[:, own],
        blobs.present(area)[:, own],
        blobs.area[:, own] / area,
        np.delete(blobs.area, own, axis=1).max(1) / area,
    )


def _moved(sight: Sight, truth: Occluder) -> Measure:
    way = places(truth)
    due, seen = in_the_open(way, truth), sight.whole & in_the_open(sight.place, truth)
    return moved(sight.place[:, None], seen[:, None], way[:, None], due[:, None])


def _reemergence(sight: Sight, expected: Occluder) -> tuple[float, float]:
    """Share of the frames due in which the shape is at its place beyond the bar, and how early or
    late it first is beyond, as a share of the clip's time; nan where it never is."""
    due = shown_after(expected)
    off = np.linalg.norm(sight.place - places(expected), axis=-1)
    recall = share((sight.whole & (off < TOLERANCE))[due])
    ahead = (sight.place[:, 0] - 0.5) * HEADING[expected.direction]
    beyond = sight.whole & (ahead > BAR + expected.extent - ROUNDING)
    if not beyond.any() or not due.any():
        return recall, math.nan
    return recall, abs(int(beyond.argmax()) - int(due.argmax())) / (expected.frames - 1)


def _identity(sight: Sight, expected: Occluder) -> float:
    """Share of the frames due with nothing of another colour; 0 if the shape is another, and nan
    where there is none."""
    due = shown_after(expected)
    if not (due & sight.whole).any():
        return math.nan
    same = shape_of(sight, due & sight.whole, expected) == expected.shape
    return share(sight.others[due] < TRACE) * same


def shape_of(sight: Sight, when: Bool[np.ndarray, " t"], expected: Occluder) -> Shape:
    """The shape that fits these frames best."""
    side = sight.video.shape[1]
    amount = amounts(sight.video[when], expected.colour)
    area = math.pi * (expected.radius * side) ** 2
    blobs = [
        Blob(expected.colour, float(size) * area, (float(x) * side, float(y) * side), own)
        for size, (x, y), own in zip(sight.share[when], sight.place[when], amount, strict=True)
    ]
    errors = shape_errors(blobs)
    return min(SHAPES, key=lambda shape: errors[shape])


def _facts_right(sight: Sight, truth: Occluder) -> float:
    """Share of the caption that is true: colour, shape, direction and speed."""
    before = sight.whole & ((sight.place[:, 0] - 0.5) * HEADING[truth.direction] < 0)
    times = np.linspace(0, 1, len(sight.place))[sight.whole]
    travel = 0.0
    if len(times) > 1:
        travel = float(np.polyfit(times, sight.place[sight.whole, 0], 1)[0])
    shape = bool(before.any()) and shape_of(sight, before, truth) == truth.shape
    right_way = travel * HEADING[truth.direction] > 0
    right_speed = travel != 0 and speed_of(abs(travel)) == speed_of(truth.travel)
    return share([bool(before.any()), shape, right_way, right_speed])
