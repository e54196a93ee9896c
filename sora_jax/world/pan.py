"""A camera pans sideways over dots at two depths and comes back: parallax and loop closure.

Near dots pass the frame twice as fast as far ones, and the second half of the clip is the first
one backwards. Motion is told per clip, not per second. Held-out combinations are of colour and
depth.
"""

import math
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, UInt8

from sora_jax.world.canvas import blank, draw, pixels
from sora_jax.world.caption import ADVERB
from sora_jax.world.scene import Colour, Speed
from sora_jax.world.splits import Cell, Split, fits, generator

KEY = 0x9A27
COLOURS: tuple[Colour, ...] = get_args(Colour)
PARALLAX = 2.0
"""How many times as fast as far dots near ones pass the frame."""
ROWS = ((0.14, 0.27, 0.40), (0.56, 0.71, 0.86))
"""Heights of the far and of the near dots, which never cover each other."""
RADIUS = (0.05, 0.065)
TRAVEL: dict[Speed, float] = {"slow": 0.2, "fast": 0.3}
"""World units by which far dots move until the camera turns."""
EDGE = 0.02
"""Least distance of the dots from the edges of the frame as the clip begins."""
HEADING = {"left": -1.0, "right": 1.0}


@dataclass(frozen=True)
class Dot:
    """A disc at its place in the first frame; it passes the frame `nearness` times as fast as far
    things."""

    colour: Colour
    place: tuple[float, float]
    radius: float
    nearness: float


@dataclass(frozen=True)
class Pan:
    """All that determines a clip but its pixel size: far dots, then near ones, and the way of the
    camera until it turns, in the world units of far things."""

    dots: tuple[Dot, ...]
    direction: Literal["left", "right"]
    travel: float
    frames: int
    fps: float


def sample(seed: int, frames: int, fps: float, split: Split, cell: Cell) -> Pan:
    """Three dots at each depth, of six colours, on rows of their own; the split is of (colour,
    depth). Each is seen in the first frame and for half of the way to the turn at least."""
    rng = generator(KEY, seed)
    while True:
        colours = rng.permutation(len(COLOURS))[:6].tolist()
        if fits(((colour, place // 3) for place, colour in enumerate(colours)), split):
            break
    direction: Literal["left", "right"] = "left" if rng.random() < 0.5 else "right"
    travel = cell.speed * list(TRAVEL.values())[rng.integers(len(TRAVEL))]
    dots = []
    for place, colour in enumerate(colours):
        depth, row = divmod(place, 3)
        radius, nearness = RADIUS[depth] * cell.size, PARALLAX**depth
        gap = radius + EDGE
        ahead = float(rng.uniform(gap + nearness * travel / 2, 1 - gap))
        x = ahead if direction == "right" else 1 - ahead
        dots.append(Dot(COLOURS[colour], (x, ROWS[depth][row]), radius, nearness))
    return Pan(tuple(dots), direction, travel, frames, fps)


def swing(frames: int) -> Float[np.ndarray, " t"]:
    """How far the camera is on its way in each frame: from 0 to 1 at the turn, and back."""
    return 1 - abs(np.linspace(-1, 1, frames))


def places(truth: Pan) -> Float[np.ndarray, "t k 2"]:
    """Where each dot is in each frame, inside of it or not."""
    starts = np.array([dot.place for dot in truth.dots])
    ways = np.array([[dot.nearness, 0.0] for dot in truth.dots])
    moved = HEADING[truth.direction] * truth.travel * swing(truth.frames)
    return starts - moved[:, None, None] * ways


def whole(places: Float[np.ndarray, "t k 2"], truth: Pan) -> np.ndarray:
    """bool [t, k]: whether all of a dot at this place lies inside the frame; not where nan."""
    radii = np.array([dot.radius for dot in truth.dots]) + EDGE / 4
    return (places[..., 0] > radii) & (places[..., 0] < 1 - radii)


def render(truth: Pan, size: int) -> UInt8[np.ndarray, "t h w 3"]:
    """The clip in size x size pixels."""
    canvas = blank(truth.frames, size)
    for index, dot in enumerate(truth.dots):
        draw(canvas, "circle", dot.colour, places(truth)[:, index], dot.radius)
    return pixels(canvas)


def speed_of(travel: float) -> Speed:
    """The nearest of the named speeds, by ratio."""
    return min(TRAVEL, key=lambda name: abs(math.log(TRAVEL[name] / travel)))


def caption(truth: Pan) -> str:
    """ "the camera pans right fast and back over red, blue and cyan dots far away and white, green
    and orange dots nearby"."""
    named = [dot.colour for dot in truth.dots]
    far, near = (f"{one}, {two} and {three} dots" for one, two, three in (named[:3], named[3:]))
    return (
        f"the camera pans {truth.direction} {ADVERB[speed_of(truth.travel)]} and back over {far}"
        f" far away and {near} nearby"
    )
