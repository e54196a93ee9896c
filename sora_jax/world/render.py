"""Pixels of a scene: shapes anti-aliased by their signed distances over a smooth dark texture."""

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from sora_jax.world.dynamics import simulate
from sora_jax.world.scene import EXTENT, PALETTE, Body, Scene, Shape

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
        for frame, centre in zip(video, positions[:, index].tolist(), strict=True):
            _draw(frame, body, centre, x, y, unit)
    return np.asarray(np.clip(video * 255 + 0.5, 0, 255), np.uint8)


def _draw(
    frame: Floats, body: Body, centre: list[float], x: Floats, y: Floats, unit: float
) -> None:
    """Lay the body over the frame [h, w, 3] in place.

    Coverage from the distance alone is wrong at corners, so it is averaged over 2 x 2 parts of
    each pixel.
    """
    reach = body.radius + 1 / unit
    columns = slice(*np.searchsorted(x, (centre[0] - reach, centre[0] + reach)))
    rows = slice(*np.searchsorted(y, (centre[1] - reach, centre[1] + reach)))
    parts = np.array((-0.25, 0.25), np.float32) / np.float32(unit)
    dx = (x[columns, None] + parts - np.float32(centre[0])).reshape(1, -1)
    dy = (y[rows, None] + parts - np.float32(centre[1])).reshape(-1, 1)
    fine = coverage(body.shape, dx, dy, body.radius / EXTENT[body.shape], 0.5 / unit)
    covered = 0.5 * (fine[::2] + fine[1::2])
    covered = 0.5 * (covered[:, ::2] + covered[:, 1::2])
    patch = frame[rows, columns]
    patch += covered[..., None] * (np.array(PALETTE[body.colour], np.float32) - patch)


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
