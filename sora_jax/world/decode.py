"""Pixels to state: which objects a clip shows, and how they move. It knows the palette and the
shapes, not the scene.

It never guesses: what the pixels leave open is None. Positions and velocities are as seen in the
frame, in world units (sqrt(height * width) pixels) and seconds, as captions describe them; the
camera is not decoded.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from sora_jax.world.caption import Movement, direction_of, speed_of
from sora_jax.world.render import coverage
from sora_jax.world.scene import (
    GRAVITY,
    PERIOD,
    SIZE_RADIUS,
    SPEED,
    Colour,
    Direction,
    Shape,
    Size,
    Speed,
)
from sora_jax.world.segment import Blob, Floats, find_blobs

WORKING_UNIT = 32
"""Larger clips are averaged down to at least this many pixels per world unit."""
LOST_FRAMES = 8
"""One frame in so many may disagree or be unreadable before a clip's count is undefined."""
SHAPES: tuple[Shape, ...] = get_args(Shape)
BLURS = 4
"""Passes of a small blur after which candidate shapes are also compared, as reconstructions are
softer than renders."""
LEAST_FLIGHT = 0.35
"""Seconds of steady flight that make a motion, where the clip is as long: a shorter stretch of a
jumpy path may be chance."""
MOST_SURPRISE = 0.8
"""Pixels by which a centroid may miss the place that its flight so far foretells."""
SLOWEST = 0.6 * SPEED["slow"]
"""Speed from which on one is slow, and a swing is one."""
PERIODS = np.linspace(*PERIOD, 41)
"""Of the swings that a path is compared with, in seconds."""
LEAST_OF_SWING = 0.9
"""Share of a swing that must be seen: up to three quarters of one are as a bounce off a wall."""
SWING_FIT = 0.4
"""Pixels by which the places of a swing may be off, root mean square."""
WORST_FIT = 0.15
"""Squared error over area beyond which a blob is none of the shapes."""
CLEAR_FIT = 0.85
"""The best shape's error must be below this share of the second best's."""


@dataclass(frozen=True)
class DecodedObject:
    """An object seen through the clip; each attribute is None where the pixels do not settle it.

    `radius` is that of the disc of equal area. `centroids` is float64 [t, 2], nan where the object
    was not found. `velocity` is that with which the clip begins. `movement`, `direction` and
    `speed` mean what they mean in `caption.ObjectFacts`, and need three frames.
    """

    colour: Colour
    shape: Shape | None
    size: Size | None
    radius: float
    centroids: Floats = field(repr=False)
    velocity: tuple[float, float] | None
    movement: Movement | None
    direction: Direction | None
    speed: Speed | None


@dataclass(frozen=True)
class DecodedScene:
    """What a clip shows. `counts` has the objects of each frame, None for an unreadable one.

    `count` is defined where all frames, or all but one in eight, show the same colours in the same
    numbers; `objects` holds those that are there for as long.
    """

    count: int | None
    counts: tuple[int | None, ...]
    objects: tuple[DecodedObject, ...]


def decode(video: NDArray[np.uint8], fps: float) -> DecodedScene:
    """Read a clip, uint8 [t, h, w, 3]; an image is one frame, and shows no motion.

    Raises ValueError for an array of another type or shape.
    """
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[-1] != 3:
        raise ValueError(
            f"decode: got a {video.dtype} array of shape {video.shape}: give uint8 [t, h, w, 3]"
        )
    pixels, unit = shrink(video)
    frames = [find_blobs(frame, unit) for frame in pixels]
    allowed = len(frames) // LOST_FRAMES
    counts = tuple(None if blobs is None else len(blobs) for blobs in frames)
    tallies = [
        None if blobs is None else Counter(blob.colour for blob in blobs) for blobs in frames
    ]
    objects = []
    usual: Counter[Colour] = Counter()
    for colour in sorted({blob.colour for blobs in frames for blob in blobs or ()}):
        seen = Counter(tally[colour] for tally in tallies if tally is not None)
        usual[colour], times = seen.most_common(1)[0]
        if times >= len(frames) - allowed:
            tracks = _tracks(colour, usual[colour], frames)
            objects += [_read(track, unit, fps) for track in tracks]
    agreeing = sum(tally == +usual for tally in tallies)
    count = usual.total() if agreeing >= len(frames) - allowed else None
    return DecodedScene(count, counts, tuple(objects))


def shrink(video: NDArray[np.uint8]) -> tuple[Floats, float]:
    """The clip as floats in [0, 1], averaged over square blocks, and its pixels per world unit."""
    frames, height, width = video.shape[:3]
    unit = math.sqrt(height * width)
    block = max(1, int(unit / WORKING_UNIT))
    rows, columns = height // block, width // block
    pixels = video[:, : rows * block, : columns * block].astype(np.float32) / 255
    if block > 1:
        pixels = pixels.reshape(frames, rows, block, columns, block, 3).mean(axis=(2, 4))
    return pixels, unit / block


def _tracks(
    colour: Colour, number: int, frames: Sequence[tuple[Blob, ...] | None]
) -> list[list[Blob | None]]:
    """The blobs of one colour as `number` tracks; each takes the nearest blob of the next frame.

    A track has None in the frames with more or fewer blobs of the colour.
    """
    tracks: list[list[Blob | None]] = [[] for _ in range(number)]
    ends: list[Blob] = []
    for blobs in frames:
        found = [blob for blob in blobs or () if blob.colour == colour]
        if len(found) == number:
            rest = list(found)
            for place, end in enumerate(ends):
                found[place] = min(rest, key=lambda blob: math.dist(blob.centroid, end.centroid))
                rest.remove(found[place])
            ends = found
        for place, track in enumerate(tracks):
            track.append(found[place] if len(found) == number else None)
    return tracks


def _read(track: Sequence[Blob | None], unit: float, fps: float) -> DecodedObject:
    """All attributes of a track of one blob or None for each frame."""
    present = [blob for blob in track if blob is not None]
    centroids = np.full((len(track), 2), np.nan)
    for index, blob in enumerate(track):
        if blob is not None:
            centroids[index] = blob.centroid
    centroids /= unit
    radius = math.sqrt(float(np.median([blob.area for blob in present])) / math.pi) / unit
    velocity, movement = _fit_motion(centroids, fps, unit)
    direction, speed, movement = _name_motion(velocity, movement)
    return DecodedObject(
        present[0].colour,
        _shape_of(present),
        _size_of(radius),
        radius,
        centroids,
        velocity,
        movement,
        direction,
        speed,
    )


def _size_of(radius: float) -> Size | None:
    """The nearest size by ratio; None outside of all, and at the very border between two."""
    ranked = sorted(SIZE_RADIUS, key=lambda size: abs(math.log(radius / SIZE_RADIUS[size])))
    best, second = (abs(math.log(radius / SIZE_RADIUS[size])) for size in ranked[:2])
    return ranked[0] if best < 0.16 and second - best > 0.02 else None


def shape_errors(blobs: Sequence[Blob]) -> dict[Shape, float]:
    """Squared error over area of each shape, rendered at the blobs' own centroids and areas."""
    radius = np.sqrt(np.array([blob.area for blob in blobs], np.float32) / math.pi)[:, None, None]
    reach = math.ceil(1.7 * float(radius.max())) + 2
    side = 2 * reach + 1
    windows, offsets_x, offsets_y = [], [], []
    for blob in blobs:
        column, row = (math.floor(value) for value in blob.centroid)
        windows.append(np.pad(blob.amount, reach)[row : row + side, column : column + side])
        offsets_x.append(np.arange(side) + column - reach + 0.5 - blob.centroid[0])
        offsets_y.append(np.arange(side) + row - reach + 0.5 - blob.centroid[1])
    amount = np.clip(np.stack(windows), 0, 1)
    dx = np.stack(offsets_x)[:, None, :].astype(np.float32)
    dy = np.stack(offsets_y)[:, :, None].astype(np.float32)
    errors: dict[Shape, float] = {}
    for shape in SHAPES:
        template = coverage(shape, dx, dy, radius, 1.0)
        misses = [float(((template - amount) ** 2).sum())]
        for _ in range(BLURS):
            template = _blur(template)
            misses.append(float(((template - amount) ** 2).sum()))
        errors[shape] = min(misses) / float(amount.sum())
    return errors


def _blur(images: Floats) -> Floats:
    """One pass of the kernel (1 2 1) / 4 along both axes of images [n, h, w] with dark borders."""
    for axis in (1, 2):
        images = 0.5 * images + 0.25 * (np.roll(images, 1, axis) + np.roll(images, -1, axis))
    return images


def _shape_of(blobs: Sequence[Blob]) -> Shape | None:
    errors = shape_errors(blobs)
    best, second = sorted(errors, key=lambda shape: errors[shape])[:2]
    clear = errors[best] < WORST_FIT and errors[best] < CLEAR_FIT * errors[second]
    return best if clear else None


def _fit_motion(
    centroids: Floats, fps: float, unit: float
) -> tuple[tuple[float, float] | None, Movement | None]:
    """Initial velocity, and "moves" or "falls" for flight without or with gravity.

    Each of the two is followed from the first frame for as long as it foretells the next centroid,
    so a fit ends before a bounce; the one that lasts longer holds. None where neither lasts three
    frames and `LEAST_FLIGHT`, or both last as long and fit about as well. "swings" where neither
    lasts to the end, and a swing does.
    """
    found = np.flatnonzero(np.isfinite(centroids[:, 0]))
    if len(found) < 3 or found[0] > 1:
        return None, None
    flights: dict[Movement, tuple[int, float, Floats]] = {
        "moves": _follow(found / fps, centroids[found], 0.0, unit),
        "falls": _follow(found / fps, centroids[found], GRAVITY, unit),
    }
    (best, (frames, miss, velocity)), (_, (other_frames, other_miss, _)) = sorted(
        flights.items(), key=lambda item: (-item[1][0], item[1][1])
    )
    if frames < len(found):
        swing = _swing(found / fps, centroids[found], unit)
        if swing is not None:
            return swing, "swings"
    least = min(LEAST_FLIGHT, (len(centroids) - 2) / fps)
    if frames < 3 or found[frames - 1] / fps < least:
        return None, None
    if frames == other_frames and miss > CLEAR_FIT * other_miss:
        return None, None
    return (float(velocity[0]), float(velocity[1])), best


def _follow(
    times: Floats, centroids: Floats, pull: float, unit: float
) -> tuple[int, float, Floats]:
    """For how many frames a flight under this pull foretells the next, its error and velocity."""
    level = centroids - 0.5 * pull * times[:, None] ** 2 * np.array([0.0, 1.0])
    design = np.stack([np.ones_like(times), times], axis=1)
    frames = 2
    while frames <= len(times):
        line = np.linalg.lstsq(design[:frames], level[:frames], rcond=None)[0]
        off = np.linalg.norm(design @ line - level, axis=1)
        if frames == len(times) or off[frames] > MOST_SURPRISE / unit:
            break
        frames += 1
    return frames, float(np.sqrt((off[:frames] ** 2).mean())), line[1]


def _swing(times: Floats, centroids: Floats, unit: float) -> tuple[float, float] | None:
    """The velocity of the swing from its middle that places are those of; None: they are of none,
    or show too little of it."""
    best, velocity = SWING_FIT / unit, None
    for period in PERIODS[times[-1] >= LEAST_OF_SWING * PERIODS]:
        turn = period / (2 * math.pi)
        design = np.stack([np.ones_like(times), turn * np.sin(times / turn)], axis=1)
        line = np.linalg.lstsq(design, centroids, rcond=None)[0]
        miss = float(np.sqrt(np.square(design @ line - centroids).sum(axis=1).mean()))
        if miss < best and math.hypot(*line[1]) > SLOWEST:
            best, velocity = miss, (float(line[1, 0]), float(line[1, 1]))
    return velocity


def _name_motion(
    velocity: tuple[float, float] | None, movement: Movement | None
) -> tuple[Direction | None, Speed | None, Movement | None]:
    """Direction, speed and movement in the words of captions."""
    if velocity is None:
        return None, None, None
    pace = math.hypot(*velocity)
    if movement == "falls" and pace < 0.12:
        return "down", None, "falls"
    if movement == "moves" and pace < 0.06:
        return None, None, "rests"
    main, side = max(map(abs, velocity)), min(map(abs, velocity))
    direction = direction_of(*velocity) if main > 2.5 * side else None
    speed = speed_of(pace) if SLOWEST < pace < 1.6 * SPEED["fast"] else None
    return direction, speed, "thrown" if movement == "falls" else movement
