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
    """Pixels that are not background, one a row: frame, place, number of a colour and amount."""

    frame: np.ndarray
    row: np.ndarray
    column: np.ndarray
    colour: np.ndarray
    amount: np.ndarray


def find(video: UInt8[np.ndarray, "t h w 3"], colours: Sequence[Colour] = COLOURS) -> Blobs:
    """The blobs of these colours in every frame; each colour is taken to have at most one."""
    seen = _of_one_colour(video)
    number = np.full(len(COLOURS), -1)
    number[[COLOURS.index(colour) for colour in colours]] = np.arange(len(colours))
    wanted = number[seen.colour] >= 0
    pixels = _Pixels(
        seen.frame[wanted],
        seen.row[wanted],
        seen.column[wanted],
        number[seen.colour[wanted]],
        seen.amount[wanted],
    )
    return _gather(pixels, len(colours), video.shape)


def find_mixed(
    video: UInt8[np.ndarray, "t h w 3"], colours: tuple[Colour, Colour]
) -> tuple[Blobs, Float[np.ndarray, "t h w 2"]]:
    """The blobs of two colours of which one lies over the other, and how far each pixel is of
    either. Along their border pixels hold both, and look like a third colour of the palette."""
    seen = _of_mixture(video, colours)
    shares = np.zeros((*video.shape[:3], 2), np.float32)
    shares[seen.frame, seen.row, seen.column, seen.colour] = seen.amount
    return _gather(seen, 2, video.shape), shares


def amounts(video: UInt8[np.ndarray, "t h w 3"], colour: Colour) -> Float[np.ndarray, "t h w"]:
    """How far each pixel is of this colour: 0 where it is background or of another."""
    seen = _of_one_colour(video)
    amount = np.zeros(video.shape[:3], np.float32)
    own = seen.colour == COLOURS.index(colour)
    amount[seen.frame[own], seen.row[own], seen.column[own]] = seen.amount[own]
    return amount


def _gather(pixels: _Pixels, colours: int, shape: tuple[int, ...]) -> Blobs:
    """The blobs of pixels of so many colours, in frames of a video's shape.

    The centroid settles from that of all pixels of the colour to that of those in its reach, so
    that a few stray ones do not pull it.
    """
    frames, height, width = shape[:3]
    pixel = 1 / np.sqrt(height * width)
    cell, cells = pixels.frame * colours + pixels.colour, frames * colours
    x, y, amount = pixels.column + 0.5, pixels.row + 0.5, pixels.amount
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
    return Blobs(
        (found * pixel**2).reshape(frames, colours),
        (centroid * pixel).reshape(frames, colours, 2),
        compactness.reshape(frames, colours),
    )


def _of_one_colour(video: UInt8[np.ndarray, "t h w 3"]) -> _Pixels:
    """The pixels that are of a colour of the palette, by its number there."""
    frame, row, column, excess = _foreground(video)
    units = RAYS / LENGTHS[:, None]
    # By channel: a product of such thin matrices waits for the threads it starts.
    parts = sum(units[:, channel, None] * excess[:, channel] for channel in range(3))
    colour, along = parts.argmax(0), parts.max(0)
    amount = along / LENGTHS[colour]
    off = np.sqrt(np.maximum(_squared(excess) - along**2, 0))
    kept = (along > 0) & (off < OFF_COLOUR * np.maximum(amount, 0.35))
    return _Pixels(
        frame[kept], row[kept], column[kept], colour[kept], np.minimum(amount[kept], 1.0)
    )


def _of_mixture(video: UInt8[np.ndarray, "t h w 3"], colours: tuple[Colour, Colour]) -> _Pixels:
    """The pixels that are of two colours and background in any shares, once for each colour."""
    frame, row, column, excess = _foreground(video)
    rays = RAYS[[COLOURS.index(colour) for colour in colours]]
    shares = excess @ np.linalg.pinv(rays)
    off = np.sqrt(_squared(excess - shares @ rays))
    kept = off < OFF_COLOUR * np.clip(shares.sum(1), 0.35, None)
    which, colour = np.nonzero((shares > FAINT) & kept[:, None])
    amount = np.minimum(shares[which, colour], 1.0)
    return _Pixels(frame[which], row[which], column[which], colour, amount)


def _foreground(
    video: UInt8[np.ndarray, "t h w 3"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Frame, row and column of the pixels that are not background, and their differences from
    it [n, 3]."""
    excess = video.astype(np.float32) / 255 - BASE
    frame, row, column = np.nonzero(_squared(excess) > FAINT**2)
    return frame, row, column, excess[frame, row, column]


def _squared(vectors: np.ndarray) -> np.ndarray:
    """Squared length along the last axis, which einsum finds several times as fast as a sum."""
    return np.asarray(np.einsum("...c,...c->...", vectors, vectors))
