"""Two discs thrown sideways that fall, bounce off the walls and collide without loss.

What determines a clip is a scene of circles under gravity; its motion is exact. Held-out
combinations are of colour and size: all bodies are discs, whose collisions are exact.
"""

import math
from dataclasses import dataclass
from typing import get_args

import numpy as np
from jaxtyping import UInt8

from sora_jax.world.canvas import blank, draw, pixels
from sora_jax.world.caption import ADVERB, direction_of, speed_of
from sora_jax.world.dynamics import simulate
from sora_jax.world.scene import GRAVITY, SPEED, Body, Colour, Scene, Size, States
from sora_jax.world.splits import Cell, Split, fits, generator

KEY = 0xB0CE
COLOURS: tuple[Colour, ...] = get_args(Colour)
SIZES: tuple[Size, ...] = get_args(Size)
RADIUS: dict[Size, float] = {"small": 0.07, "medium": 0.09, "large": 0.115}
"""Smaller than the bodies of captioned scenes: longer flights between contacts measure more."""
START_GAP = 0.05
"""World units that discs keep from the walls as the clip begins."""
MEETING = (0.25, 0.6)
"""Seconds between which the discs meet: after enough free flight to see, and in short clips too."""
HEAD_ON = 0.8
"""Largest offset of their lines of flight, over the sum of their radii."""


@dataclass(frozen=True)
class Bounce:
    """All that determines a clip but its pixel size: two circles, and when they are seen."""

    scene: Scene
    frames: int
    fps: float


def sample(seed: int, frames: int, fps: float, split: Split, cell: Cell) -> Bounce:
    """Discs of the upper half, each thrown left or right, that meet before they touch a wall; the
    split is of (colour, size)."""
    rng = generator(KEY, seed)
    while True:
        colours = rng.permutation(len(COLOURS))[:2]
        sizes = rng.integers(len(SIZES), size=2)
        if fits(zip(colours.tolist(), sizes.tolist(), strict=True), split):
            break
    radii = cell.size * np.array([RADIUS[SIZES[size]] for size in sizes])
    while True:
        speeds = cell.speed * rng.choice(list(SPEED.values()), 2)
        velocities = speeds * rng.choice((-1.0, 1.0), 2)
        gap = (radii + START_GAP)[:, None]
        places = rng.uniform(gap, np.concatenate([1 - gap, np.full_like(gap, 0.5)], 1))
        if _meet_first(places, velocities, radii):
            break
    bodies = tuple(
        Body("circle", COLOURS[colour], size_of(radius), radius, radius**2, (x, y), (velocity, 0.0))
        for colour, radius, (x, y), velocity in zip(
            colours.tolist(), radii.tolist(), places.tolist(), velocities.tolist(), strict=True
        )
    )
    return Bounce(Scene(bodies, GRAVITY, (1.0, 1.0), 0, 0.0, (0.0, 0.0), seed), frames, fps)


def _meet_first(places: np.ndarray, velocities: np.ndarray, radii: np.ndarray) -> bool:
    """Whether discs [2, 2] thrown sideways meet head-on, in time, and before any reaches a wall."""
    across, down = places[1] - places[0]
    nearing = -np.sign(across) * (velocities[1] - velocities[0])
    reach = radii.sum()
    if abs(down) > HEAD_ON * reach or nearing <= 0:
        return False
    meeting = (abs(across) - math.sqrt(reach**2 - down**2)) / nearing
    to_side = np.where(velocities > 0, 1 - places[:, 0], places[:, 0]) - radii
    to_floor = 1 - places[:, 1] - radii
    wall = min((to_side / np.abs(velocities)).min(), np.sqrt(2 * to_floor / GRAVITY).min())
    return bool(MEETING[0] < meeting < min(MEETING[1], wall))


def size_of(radius: float) -> Size:
    """The size nearest to a radius, by ratio."""
    return min(RADIUS, key=lambda size: abs(math.log(RADIUS[size] / radius)))


def states(truth: Bounce) -> States:
    """Positions and velocities [t, 2 discs, 2], in world units and seconds."""
    return simulate(truth.scene, np.arange(truth.frames) / truth.fps)


def render(truth: Bounce, size: int) -> UInt8[np.ndarray, "t h w 3"]:
    """The clip in size x size pixels."""
    canvas = blank(truth.frames, size)
    places = states(truth).positions
    for index, body in enumerate(truth.scene.bodies):
        draw(canvas, "circle", body.colour, places[:, index], body.radius)
    return pixels(canvas)


def caption(truth: Bounce) -> str:
    """ "a large red ball is thrown left fast and a small blue ball is thrown right slowly"."""
    return " and ".join(_phrase(body) for body in truth.scene.bodies)


def _phrase(body: Body) -> str:
    direction = direction_of(*body.velocity)
    adverb = ADVERB[speed_of(math.hypot(*body.velocity))]
    return f"a {body.size} {body.colour} ball is thrown {direction} {adverb}"
