"""Pixels of a scene: shapes anti-aliased by their signed distances over a smooth dark texture."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sora_jax.world.dynamics import simulate
from sora_jax.world.scene import EXTENT, PALETTE, Scene, Shape

Floats = NDArray[np.floating]

WAVES = 5
"""Plane waves that make up a background texture."""


def render(scene: Scene, frames: int, height: int, width: int, fps: float) -> np.ndarray:
    """The clip, uint8 [t, h, w, 3]: frame i shows the scene at i / fps seconds.

    Raises ValueError where height and width do not have the aspect ratio of the scene's box.
    """
    unit = math.sqrt(height * width)
    if abs(width / unit - scene.box[0]) > 1e-6:
        raise ValueError(
            f"render: the scene of seed {scene.seed} has aspect ratio"
            f" {scene.box[0] / scene.box[1]:.4f}, not that of {width} x {height} pixels: sample it"
            " for the aspect ratio at which it is rendered"
        )
    times = np.arange(frames) / fps
    x = ((np.arange(width) + 0.5) / unit).astype(np.float32)
    y = ((np.arange(height) + 0.5) / unit).astype(np.float32)
    video = background(scene, times, x, y)
    positions = simulate(scene, times).positions.astype(np.float32)
    for index, body in enumerate(scene.bodies):
        reach = body.radius + 1 / unit
        colour = np.array(PALETTE[body.colour], np.float32)
        for frame, (centre_x, centre_y) in zip(video, positions[:, index], strict=True):
            rows = slice(*np.searchsorted(y, (centre_y - reach, centre_y + reach)))
            columns = slice(*np.searchsorted(x, (centre_x - reach, centre_x + reach)))
            dx, dy = x[columns] - centre_x, y[rows, None] - centre_y
            covered = coverage(body.shape, dx, dy, body.radius / EXTENT[body.shape], 1 / unit)[
                ..., None
            ]
            patch = frame[rows, columns]
            patch += covered * (colour - patch)
    return np.asarray(np.clip(video * 255 + 0.5, 0, 255), np.uint8)


def background(scene: Scene, times: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """The texture, float32 [t, h, w, 3], at pixel centres x [w] and y [h]; it stays behind as the
    camera moves."""
    generator = np.random.default_rng(scene.background_seed)
    base = generator.uniform(0.10, 0.16) + generator.uniform(-0.02, 0.02, 3)
    wavelength = generator.uniform(0.5, 1.5, WAVES)
    angle = generator.uniform(0, 2 * math.pi, WAVES)
    phase = generator.uniform(0, 2 * math.pi, WAVES)
    tint = generator.uniform(0.2, 1.0, (WAVES, 3))
    tint *= scene.texture / tint.sum(axis=0)
    wave_x, wave_y = (
        2 * math.pi * np.cos(angle) / wavelength,
        2 * math.pi * np.sin(angle) / wavelength,
    )
    moving = any(scene.camera_velocity)
    shown = times if moving else times[:1]
    shift = shown[:, None] * (wave_x * scene.camera_velocity[0] + wave_y * scene.camera_velocity[1])
    turns = x[None, :, None] * wave_x + y[:, None, None] * wave_y + phase
    waves = np.cos((turns + shift[:, None, None]).astype(np.float32))
    texture = (waves @ tint.astype(np.float32) + base).astype(np.float32)
    return texture if moving else np.repeat(texture, len(times), axis=0)


def coverage(
    shape: Shape, dx: np.ndarray, dy: np.ndarray, radius: float, softness: float
) -> np.ndarray:
    """How much of each pixel the shape covers, from 0 to 1.

    `dx` and `dy` are offsets from the shape's centre, `radius` that of the disc of equal area,
    `softness` the width of the edge, which is the size of a pixel.
    """
    covered: Floats = np.clip(
        0.5 - DISTANCES[shape](dx, dy, radius * EXTENT[shape]) / softness, 0, 1
    )
    return covered


def _circle(x: Floats, y: Floats, radius: float) -> Floats:
    return np.sqrt(x * x + y * y) - radius


def _square(x: Floats, y: Floats, radius: float) -> Floats:
    return np.maximum(abs(x), abs(y)) - radius * math.sqrt(0.5)


def _triangle(x: Floats, y: Floats, radius: float) -> Floats:
    return np.maximum(abs(x) * (math.sqrt(3) / 2) - y * 0.5, y) - radius * 0.5


def _diamond(x: Floats, y: Floats, radius: float) -> Floats:
    return (abs(x) + abs(y) - radius) * math.sqrt(0.5)


def _star(x: Floats, y: Floats, radius: float) -> Floats:
    # Fold the plane into the half-wedge of one tip: there the star has a single straight edge.
    wedge = 2 * math.pi / 5
    angle = np.arctan2(x, -y)
    angle = abs(angle - wedge * np.round(angle / wedge))
    length = np.sqrt(x * x + y * y)
    along, across = length * np.cos(angle), length * np.sin(angle)
    notch = (0.5 * math.cos(wedge / 2), 0.5 * math.sin(wedge / 2))
    normal = (notch[1], 1 - notch[0])
    scale = 1 / math.hypot(*normal)
    return ((along - radius) * normal[0] + across * normal[1]) * scale


def _cross(x: Floats, y: Floats, radius: float) -> Floats:
    arm = radius / math.sqrt(1 + 0.4**2)
    long, short = np.maximum(abs(x), abs(y)), np.minimum(abs(x), abs(y))
    return np.maximum(long - arm, short - 0.4 * arm)


DISTANCES: dict[Shape, Callable[[Floats, Floats, float], Floats]] = {
    "circle": _circle,
    "square": _square,
    "triangle": _triangle,
    "diamond": _diamond,
    "star": _star,
    "cross": _cross,
}
"""Signed distance to the edge, negative inside, of the shape of this enclosing radius; exact
beside straight edges."""
