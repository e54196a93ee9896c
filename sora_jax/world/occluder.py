"""A shape passes behind a bar and comes out on the other side: permanence and identity.

Motion is told per clip, not per second: a clip of any length shows the shape before, behind and
after the bar. Held-out combinations are of colour and shape.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, UInt8

from sora_jax.world.canvas import GREY, blank, box_cover, draw, lay, pixels
from sora_jax.world.caption import ADVERB
from sora_jax.world.scene import EXTENT, Colour, Shape, Speed
from sora_jax.world.splits import Cell, Split, fits, generator

KEY = 0x0CC1
COLOURS: tuple[Colour, ...] = tuple(colour for colour in get_args(Colour) if colour != "white")
"""White is left out: a grey bar looks like half of it."""
SHAPES: tuple[Shape, ...] = ("circle", "square", "diamond", "cross")
RADIUS = 0.075
"""Of the disc of equal area."""
BAR = 0.15
"""Half the width of the bar, which hides the widest shape whole."""
TRAVEL: dict[Speed, float] = {"slow": 0.75, "fast": 0.95}
"""World units in the time of the clip."""
EDGE = 0.02
"""Least distance of the shape from the edges of the frame as the clip begins."""
HEADING = {"left": -1.0, "right": 1.0}


@dataclass(frozen=True)
class Occluder:
    """All that determines a clip but its pixel size. `start` is the place in the first frame,
    `travel` the way in the time of the clip; `radius` that of the disc of equal area."""

    colour: Colour
    shape: Shape
    radius: float
    start: tuple[float, float]
    direction: Literal["left", "right"]
    travel: float
    frames: int
    fps: float

    @property
    def extent(self) -> float:
        """Radius of the enclosing disc."""
        return self.radius * EXTENT[self.shape]


def sample(seed: int, frames: int, fps: float, split: Split, cell: Cell) -> Occluder:
    """A shape that passes at any height; the split is of (colour, shape)."""
    rng = generator(KEY, seed)
    while True:
        colour, shape = int(rng.integers(len(COLOURS))), int(rng.integers(len(SHAPES)))
        if fits([(colour, shape)], split):
            break
    travel = cell.speed * list(TRAVEL.values())[rng.integers(len(TRAVEL))]
    radius = RADIUS * cell.size
    gap = radius * EXTENT[SHAPES[shape]] + EDGE
    direction: Literal["left", "right"] = "left" if rng.random() < 0.5 else "right"
    # The middle of the way is behind the bar, unless that began outside of the frame.
    before = max(gap, 0.5 - travel / 2)
    x = before if direction == "right" else 1 - before
    y = float(rng.uniform(gap, 1 - gap))
    return Occluder(COLOURS[colour], SHAPES[shape], radius, (x, y), direction, travel, frames, fps)


def places(truth: Occluder) -> Float[np.ndarray, "t 2"]:
    """Where the shape is in each frame, seen or not."""
    way = truth.travel * HEADING[truth.direction] * np.linspace(0, 1, truth.frames)
    return np.stack([truth.start[0] + way, np.full(truth.frames, truth.start[1])], 1)


def hidden(truth: Occluder) -> Bool[np.ndarray, " t"]:
    """In which frames the bar hides all of the shape."""
    return abs(places(truth)[:, 0] - 0.5) < BAR - truth.extent


def in_the_open(places: Float[np.ndarray, "t 2"], truth: Occluder) -> Bool[np.ndarray, " t"]:
    """At which places all of the shape is to be seen, on either side of the bar; not where nan."""
    off = abs(places[:, 0] - 0.5)
    return (off > BAR + truth.extent) & (off < 0.5 - truth.extent)


def shown_after(truth: Occluder) -> Bool[np.ndarray, " t"]:
    """In which frames all of the shape is to be seen beyond the bar."""
    way = places(truth)
    return in_the_open(way, truth) & ((way[:, 0] - 0.5) * HEADING[truth.direction] > 0)


def render(truth: Occluder, size: int) -> UInt8[np.ndarray, "t h w 3"]:
    """The clip in size x size pixels."""
    canvas = blank(truth.frames, size)
    draw(canvas, truth.shape, truth.colour, places(truth), truth.radius)
    lay(canvas, box_cover(np.array([[0.5 - BAR, 0.0]]), np.array([[0.5 + BAR, 1.0]]), size), GREY)
    return pixels(canvas)


def speed_of(travel: float) -> Speed:
    """The nearest of the named speeds, by ratio."""
    return min(TRAVEL, key=lambda name: abs(math.log(TRAVEL[name] / travel)))


def caption(truth: Occluder) -> str:
    """ "a red diamond moves right slowly behind a grey bar and comes out again"."""
    article = "an" if truth.colour[0] in "aeiou" else "a"
    return (
        f"{article} {truth.colour} {truth.shape} moves {truth.direction}"
        f" {ADVERB[speed_of(truth.travel)]} behind a grey bar and comes out again"
    )
