"""Pixels to blobs of palette colours on the plain background: area, place and compactness.

A pixel is read as background + amount * (palette colour - background); its colour is the one that
leaves the least over. All frames are read at once, in floats.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8

from sora_jax.world.canvas import BACKGROUND
from sora_jax.world.scene import PALETTE, Colour

COLOURS: tuple[Colour, ...] = tuple(PALETTE)
BASE = np.array(BACKGROUND, np.float32)
RAYS = np.array([PALETTE[colour] for colour in COLOURS], np.float32) - BASE
LENGTHS = np.linalg.norm(RAYS, axis=-1)

FAINT = 0.08
"""Distance from the background, in RGB, below which a pixel belongs to it."""
CORE = 0.25
"""Amount from which a pixel tells where to look; the faint rest counts near a blob only."""
OFF_COLOUR = 0.3
"""Distance from the palette colour's ray, over the amount, beyond which a pixel is of no colour."""
REACH = 1.5
"""Radius within which a blob is sought, over that of the disc of its area."""
COMPACT = 0.7
"""Least compactness of a blob. A disc has 1, and uniform noise below a third."""


@dataclass(frozen=True, eq=False)
class Blobs:
    """What each frame shows of k colours: one blob of each, where there is one.

    `area` in squared world units. `centroid` (x, y) in world units, nan without the colour.
    `compactness`: the share of the colour's pixels that lie within the reach of the centroid.
    """

    area: Float[np.ndarray, "t k"]
    centroid: Float[np.ndarray, "t k 2"]
    compactness: Float[np.ndarray, "t k"]

    def present(self, area: float | np.ndarray) -> np.ndarray:
        """bool [t, k]: whether there is one compact blob of about this area, one or [k]."""
        right = (self.area > 0.5 * area) & (self.area < 1.6 * area)
        return np.asarray(right & (self.compactness > COMPACT))


@dataclass(frozen=True, eq=False)
class _Pixels:
    """The pixels that are not background, one a row: frame, place, palette colour and amount."""

    frame: np.ndarray
    x: np.ndarray
    y: np.ndarray
    colour: np.ndarray
    amount: np.ndarray


def find(video: UInt8[np.ndarray, "t h w 3"], colours: Sequence[Colour] = COLOURS) -> Blobs:
    """The blobs of these colours in every frame; each colour is taken to have at most one.

    The centroid settles from that of all pixels of the colour to that of those in its reach, so
    that a few stray ones do not pull it.
    """
    seen = _foreground(video)
    height, width = video.shape[1:3]
    pixel = 1 / np.sqrt(height * width)
    number = np.full(len(COLOURS), -1)
    number[[COLOURS.index(colour) for colour in colours]] = np.arange(len(colours))
    wanted = number[seen.colour] >= 0
    cell = seen.frame[wanted] * len(colours) + number[seen.colour[wanted]]
    x, y, amount = seen.x[wanted], seen.y[wanted], seen.amount[wanted]
    cells = len(video) * len(colours)
    core = np.where(amount > CORE, amount, 0.0)
    area = np.bincount(cell, core, cells)
    weights, near = core, core
    for extent in (1.5 * REACH, REACH, REACH):
        total = np.maximum(np.bincount(cell, weights, cells), 1e-9)
        middle_x = np.bincount(cell, weights * x, cells) / total
        middle_y = np.bincount(cell, weights * y, cells) / total
        reach = extent * np.sqrt(area / np.pi) + 1
        inside = np.hypot(x - middle_x[cell], y - middle_y[cell]) < reach[cell]
        weights, near = np.where(inside, amount, 0.0), np.where(inside, core, 0.0)
    found = np.bincount(cell, weights, cells)
    total = np.maximum(found, 1e-9)
    centroid = np.stack([np.bincount(cell, weights * at, cells) / total for at in (x, y)], -1)
    centroid[found < 1] = np.nan
    compactness = np.bincount(cell, near, cells) / np.maximum(area, 1e-9)
    shape = (len(video), len(colours))
    return Blobs(
        (found * pixel**2).reshape(shape),
        (centroid * pixel).reshape(*shape, 2),
        compactness.reshape(shape),
    )


def amounts(video: UInt8[np.ndarray, "t h w 3"], colour: Colour) -> Float[np.ndarray, "t h w"]:
    """How far each pixel is of this colour: 0 where it is background or of another."""
    seen = _foreground(video)
    amount = np.zeros(video.shape[:3], np.float32)
    own = seen.colour == COLOURS.index(colour)
    row, column = (seen.y[own] - 0.5).astype(int), (seen.x[own] - 0.5).astype(int)
    amount[seen.frame[own], row, column] = seen.amount[own]
    return amount


def _foreground(video: UInt8[np.ndarray, "t h w 3"]) -> _Pixels:
    """The pixels of palette colours."""
    excess = video.astype(np.float32) / 255 - BASE
    frame, row, column = np.nonzero(_squared(excess) > FAINT**2)
    excess = excess[frame, row, column]
    units = RAYS / LENGTHS[:, None]
    # By channel: a product of such thin matrices waits for the threads it starts.
    parts = sum(units[:, channel, None] * excess[:, channel] for channel in range(3))
    colour, along = parts.argmax(0), parts.max(0)
    amount = along / LENGTHS[colour]
    off = np.sqrt(np.maximum(_squared(excess) - along**2, 0))
    kept = (along > 0) & (off < OFF_COLOUR * np.maximum(amount, 0.35))
    return _Pixels(
        frame[kept],
        column[kept] + 0.5,
        row[kept] + 0.5,
        colour[kept],
        np.minimum(amount[kept], 1.0),
    )


def _squared(vectors: np.ndarray) -> np.ndarray:
    """Squared length along the last axis, which einsum finds several times as fast as a sum."""
    return np.asarray(np.einsum("...c,...c->...", vectors, vectors))
