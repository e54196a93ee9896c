"""A cube of coloured corners spins in perspective: one rigid body, at one rate, in space.

Only the corners are drawn, each a disc of a colour of its own, nearer ones larger and over farther
ones. x goes to the right, y down and z away from the viewer. The spin is told per clip, not per
second. Held-out combinations are of the direction of the spin and the colour of the corner that is
nearest in the first frame.
"""

import math
from dataclasses import dataclass
from itertools import product
from typing import get_args

import numpy as np
from jaxtyping import Float, UInt8

from sora_jax.world.canvas import blank, lay, pixels, shape_cover
from sora_jax.world.caption import ADVERB
from sora_jax.world.scene import PALETTE, Colour, Direction, Speed
from sora_jax.world.splits import Cell, Split, fits, generator

KEY = 0xC0BE
COLOURS: tuple[Colour, ...] = get_args(Colour)
CORNERS = np.array(list(product((-1.0, 1.0), repeat=3)))
DISTANCE = 3.0
"""World units from the eye to the centre of the cube, whose picture there has its true size."""
HALF_SIDE = 0.17
RADIUS = 0.05
TURN: dict[Speed, float] = {"slow": 3.0, "fast": 4.5}
"""Radians in the time of the clip."""
AXIS: dict[Direction, tuple[float, float, float]] = {
    "left": (0.0, 1.0, 0.0),
    "right": (0.0, -1.0, 0.0),
    "up": (-1.0, 0.0, 0.0),
    "down": (1.0, 0.0, 0.0),
}
"""About which, right-handed, the near side moves in this direction."""
DIRECTIONS: tuple[Direction, ...] = tuple(AXIS)


@dataclass(frozen=True)
class Cube:
    """All that determines a clip but its pixel size: the colour of each corner, the orientation in
    the first frame as a quaternion (w, x, y, z), and the turn in the time of the clip.

    `wobble`, over the half side, is how far each corner swings on its own: 0 of a rigid body.
    """

    colours: tuple[Colour, ...]
    orientation: tuple[float, float, float, float]
    direction: Direction
    turn: float
    half_side: float
    radius: float
    frames: int
    fps: float
    wobble: float = 0.0


def sample(seed: int, frames: int, fps: float, split: Split, cell: Cell) -> Cube:
    """A cube in any orientation; the split is of (colour of the nearest corner, direction)."""
    rng = generator(KEY, seed)
    while True:
        colours = tuple(COLOURS[index] for index in rng.permutation(len(COLOURS)))
        quaternion = rng.normal(size=4)
        w, x, y, z = (quaternion / np.linalg.norm(quaternion)).tolist()
        direction = int(rng.integers(len(DIRECTIONS)))
        turn = cell.speed * list(TURN.values())[rng.integers(len(TURN))]
        cube = Cube(
            colours,
            (w, x, y, z),
            DIRECTIONS[direction],
            turn,
            HALF_SIDE * cell.size,
            RADIUS * cell.size,
            frames,
            fps,
        )
        if fits([(COLOURS.index(nearest_colour(cube)), direction)], split):
            return cube


def corners(truth: Cube) -> Float[np.ndarray, "t 8 3"]:
    """Where the corners are in space, from the centre of the cube."""
    time = np.linspace(0, 1, truth.frames)
    phase = np.arange(24).reshape(8, 3) * 2.4  # the golden angle: no two corners swing together
    swing = truth.wobble * np.sin(2 * math.pi * 2 * time[:, None, None] + phase)
    body = truth.half_side * (CORNERS + swing) @ _rotation(truth.orientation).T
    spin = np.array([_about(AXIS[truth.direction], truth.turn * at) for at in time])
    return np.einsum("tij,tkj->tki", spin, body)


def places(truth: Cube) -> Float[np.ndarray, "t 8 2"]:
    """Where the centres of the corners are in the frame."""
    space = corners(truth)
    return 0.5 + space[..., :2] * _scale(space)


def radii(truth: Cube) -> Float[np.ndarray, "t 8"]:
    """How large the corners are in the frame."""
    return truth.radius * _scale(corners(truth))[..., 0]


def render(truth: Cube, size: int) -> UInt8[np.ndarray, "t h w 3"]:
    """The clip in size x size pixels, painted from the farthest corner to the nearest."""
    canvas = blank(truth.frames, size)
    paints = np.array([PALETTE[colour] for colour in truth.colours])
    order = np.argsort(-corners(truth)[..., 2], axis=1)
    at, radius = places(truth), radii(truth)
    frame = np.arange(truth.frames)
    for index in order.T:
        cover = shape_cover("circle", at[frame, index], radius[frame, index], size)
        lay(canvas, cover, paints[index])
    return pixels(canvas)


def nearest_colour(truth: Cube) -> Colour:
    """The colour of the corner that is nearest in the first frame."""
    return truth.colours[int(corners(truth)[0, :, 2].argmin())]


def speed_of(turn: float) -> Speed:
    """The nearest of the named speeds, by ratio."""
    return min(TURN, key=lambda name: abs(math.log(TURN[name] / turn)))


def caption(truth: Cube) -> str:
    """ "a cube of eight coloured corners, the nearest red, spins left slowly"."""
    return (
        f"a cube of eight coloured corners, the nearest {nearest_colour(truth)}, spins"
        f" {truth.direction} {ADVERB[speed_of(truth.turn)]}"
    )


def _scale(space: Float[np.ndarray, "t 8 3"]) -> Float[np.ndarray, "t 8 1"]:
    return DISTANCE / (DISTANCE + space[..., 2:])


def _about(axis: tuple[float, float, float], angle: float) -> Float[np.ndarray, "3 3"]:
    """The right-handed rotation about a unit axis."""
    half = angle / 2
    x, y, z = (math.sin(half) * part for part in axis)
    return _rotation((math.cos(half), x, y, z))


def _rotation(quaternion: tuple[float, float, float, float]) -> Float[np.ndarray, "3 3"]:
    """The rotation of a unit quaternion (w, x, y, z)."""
    w, x, y, z = quaternion
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )
