"""What each frame of a clip shows: bodies of the procedural world by colour, read from pixels.

`world.decode` reads a clip as a whole and gives up where frames disagree; here frames are read one
by one, for what is asked of a task is often about some of them.
"""

import dataclasses
from collections import Counter
from collections.abc import Iterable

import numpy as np
from jaxtyping import Bool, Float, UInt8

from sora_jax.world.decode import shrink
from sora_jax.world.scene import PALETTE, Colour
from sora_jax.world.segment import (
    DARK,
    LEAST_AREA,
    OFF_BLOB_COLOUR,
    VISIBLE,
    Blob,
    find_blobs,
)

Video = UInt8[np.ndarray, "t h w 3"]


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """The blobs of each frame, or None of one that cannot be read; `unit` pixels to the world
    unit."""

    frames: tuple[tuple[Blob, ...] | None, ...]
    unit: float

    def blob(self, frame: int, colours: Iterable[Colour]) -> Blob | None:
        """The only one of any of the colours; None where there is none, or several."""
        wanted = set(colours)
        found = [blob for blob in self.frames[frame] or () if blob.colour in wanted]
        return found[0] if len(found) == 1 else None

    def centroids(self, *colours: Colour) -> Float[np.ndarray, "t 2"]:
        """Of the only blob of any of the colours, in world units; nan where it is not found."""
        blobs = [self.blob(frame, colours) for frame in range(len(self.frames))]
        lost = (np.nan, np.nan)
        found = [lost if blob is None else blob.centroid for blob in blobs]
        return np.array(found, np.float64) / self.unit

    def shows(self, colours: Iterable[Colour]) -> Bool[np.ndarray, " t"]:
        """Of each frame: whether it shows one body of each colour and nothing else."""
        wanted = Counter(colours)
        return np.array(
            [
                blobs is not None and Counter(blob.colour for blob in blobs) == wanted
                for blobs in self.frames
            ]
        )

    def stretch(self, colour: Colour) -> float:
        """Width over height of the blob of a colour, as standard deviations of its area, mean over
        the frames that show it; nan where none does."""
        blobs = [self.blob(frame, [colour]) for frame in range(len(self.frames))]
        ratios = [_stretch(blob) for blob in blobs if blob is not None]
        return float(np.mean(ratios)) if ratios else np.nan


def read(video: Video) -> Reading:
    """What a clip shows, frame by frame."""
    pixels, unit = shrink(video)
    return Reading(tuple(find_blobs(frame, unit) for frame in pixels), unit)


def share_of_new(video: Video, old: Colour, new: Colour) -> Float[np.ndarray, " t"]:
    """How far the one body of a clip has gone from a colour to another, from 0 to 1, in every
    frame: its colour is taken as a sum of the two, so that one between them, which is none of the
    palette, is read as well. nan where nothing stands out from a dark background, or what
    does has a third colour."""
    pixels, unit = shrink(video)
    shares = []
    for frame in pixels:
        dark = frame.max(-1) < DARK
        base = frame[dark].mean(0) if dark.any() else np.zeros(3)
        strength = np.linalg.norm(frame - base, axis=-1)
        body = strength > VISIBLE
        if not dark.any() or body.sum() < LEAST_AREA * unit**2:
            shares.append(np.nan)
            continue
        core = body & (strength >= np.median(strength[body]))  # edges are half background
        rays = np.stack([np.asarray(PALETTE[colour]) - base for colour in (old, new)], 1)
        colour = frame[core].mean(0) - base
        of_old, of_new = amounts = np.linalg.lstsq(rays, colour)[0]
        off = np.linalg.norm(rays @ amounts - colour) > OFF_BLOB_COLOUR * np.linalg.norm(colour)
        share = np.nan if off else np.clip(of_new / max(of_old + of_new, 1e-6), 0.0, 1.0)
        shares.append(share)
    return np.array(shares)


def _stretch(blob: Blob) -> float:
    spreads = []
    for axis in (0, 1):
        share = blob.amount.sum(axis) / blob.amount.sum()
        places = np.arange(len(share))
        spreads.append(share @ np.square(places - share @ places))
    return float(np.sqrt(spreads[0] / spreads[1]))
