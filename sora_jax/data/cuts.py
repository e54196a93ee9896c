"""Which clips of the buckets' sizes a shot or an image gives, and their pixels."""

import dataclasses
from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import UInt8

from sora_jax.data.buckets import DataConfig, nearest_size, split_lengths
from sora_jax.data.transforms import fit, fit_changes

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels of a picture


@dataclasses.dataclass(frozen=True)
class Cut:
    """A clip to be taken out of a video, or an image; `changes` say what is done to it."""

    start: int  # frame of the file
    frames: int
    size: tuple[int, int]  # height and width of its bucket
    changes: tuple[str, ...]
    duration: int | None = None  # frames of its bucket, where it has some to spare


@dataclasses.dataclass(frozen=True)
class Plan:
    """The clips of a shot; or why there are none, a fixed phrase and which or how."""

    cuts: tuple[Cut, ...] = ()
    dropped: tuple[str, str] | None = None
    left_over: int = 0  # frames at the end, too few for another clip


def plan(start: int, frames: int, size: tuple[int, int], config: DataConfig, *, of: int) -> Plan:
    """Consecutive clips of a shot: of the buckets' size nearest in aspect that needs no upscaling,
    as many of the longest duration as fit, then shorter ones.

    Args:
        start: first frame of the shot; 0 for an image.
        frames: of the shot; 1 for an image.
        size: height and width of what is to be seen of it.
        config: the buckets to choose from, and how many frames clips may have to spare.
        of: frames of the whole file.
    """
    end, buckets = start + frames, config.buckets
    name = f"frames {start} to {end}: " if of > 1 else ""
    long_enough = [bucket for bucket in buckets if 1 < bucket.frames <= frames]
    images = [bucket for bucket in buckets if bucket.frames == 1]
    if not long_enough and not images:
        return Plan(dropped=("too short", f"{name}shorter than every bucket"))
    bucket_size = nearest_size(*size, long_enough or images)
    if bucket_size is None:
        return Plan(dropped=("too small", f"{name}{size[0]}x{size[1]} is below every bucket"))
    resized = fit_changes(*size, bucket_size)
    if not long_enough:
        short = f"frame {start} as an image: {frames} frames are too few for a video bucket"
        return Plan((Cut(start, 1, bucket_size, (short,) * (of > 1) + resized),))
    cuts = []
    durations = [b.frames for b in long_enough if (b.height, b.width) == bucket_size]
    for duration, length in split_lengths(frames, durations, config.spare_frames):
        part = f"frames {start} to {start + length} of {of}"
        changes = (part,) * (length < of) + resized
        cuts.append(Cut(start, length, bucket_size, changes, duration))
        start += length
    return Plan(tuple(cuts), left_over=end - start)


def taken(
    frames: Iterator[UInt8[np.ndarray, "h w 3"]],
    cuts: Sequence[Cut],
    boxes: Sequence[Box | None] | None = None,
) -> Iterator[UInt8[np.ndarray, "t h w 3"]]:
    """The pixels of cuts of a file, in their order; no frame after the last is decoded.

    Args:
        frames: all of the file.
        cuts: in order, none beginning before the end of another.
        boxes: what is to be seen, for each; by default all.
    """
    position = 0
    for cut, box in zip(cuts, boxes or [None] * len(cuts), strict=True):
        for _ in range(cut.start - position):
            next(frames)
        position = cut.start + cut.frames
        left, top, right, bottom = box or (0, 0, None, None)
        yield np.stack(
            [fit(next(frames)[top:bottom, left:right], cut.size) for _ in range(cut.frames)]
        )
