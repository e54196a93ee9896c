"""One pass over a video: its shots, found while it is decoded, as clips that scores look at."""

import collections
import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8

from sora_jax.data.footage import (
    CutFinder,
    decoded,
    opened,
    quarter_turns,
    rate_of,
    read_image,
    small_picture,
)

SAMPLE_SECONDS = 0.25  # between the pictures that scores look at
PLANE_SAMPLES = 4  # of these, each so many is also kept at full size, without colour
MOST_SECONDS = 20.0  # a longer shot is several clips
COLOUR_RANGES = {1: "limited", 2: "full"}  # as FFmpeg numbers them


@dataclasses.dataclass(frozen=True)
class Clip:
    """A shot, or a part of a long one, as scores see it. Everything is upright.

    Attributes:
        first: number of its first frame.
        frames: how many.
        start: seconds at which its first frame is shown, and `end` its last.
        pictures: of about 256 pixels a side, RGB, one each `seconds`.
        averages: brightness at the size of the pictures, each the mean of all frames of `seconds`.
        planes: brightness at the size of the video, one for each four pictures.
        changes: mean size of the change of brightness from each frame to the next, of 255.
        motion: mean length of the codec's motion vectors, frame by frame, in picture heights;
            not a number where the codec has none.
    """

    first: int
    frames: int
    start: float
    end: float
    seconds: float
    pictures: UInt8[np.ndarray, "n h w 3"]
    averages: UInt8[np.ndarray, "a h w"]
    planes: UInt8[np.ndarray, "m H W"]
    changes: Float[np.ndarray, " t-1"]
    motion: Float[np.ndarray, " t"]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the video."""
        return self.planes.shape[1], self.planes.shape[2]


@dataclasses.dataclass(frozen=True)
class Probe:
    """What is told of a file as a whole, once it was read to its end."""

    frames: int
    fps: float
    variable_rate: bool
    rotation: int  # degrees, anticlockwise
    colour_range: str  # "limited", "full" or "unknown"
    codec: str
    bits_a_second: float


@dataclasses.dataclass(frozen=True)
class _Seen:
    """A decoded frame, held until it is known whether it begins a shot."""

    frame: Any
    width: int
    time: float
    picture: UInt8[np.ndarray, "h w 3"]
    brightness: UInt8[np.ndarray, "h w"]
    motion: float


class VideoPass:
    """Decodes a video once, giving its clips as they end, and then the probe of the whole."""

    def __init__(self, path: Path) -> None:
        from av.video.reformatter import VideoReformatter

        self._path = path
        self._finder, self._reformatter = CutFinder(), VideoReformatter()
        self._times: list[float] = []
        self._rotation, self._colour_range, self._codec = 0, "unknown", "unknown"

    def clips(self) -> Iterator[Clip]:
        """The video's clips in order, with no frame between them left out.

        Raises:
            MediaError: it cannot be read; at the end if what is missing is the end. Clips given
                before are then of a damaged file.
        """
        rate, self._codec = _declared(self._path)
        stride, most = max(1, round(rate * SAMPLE_SECONDS)), max(1, round(rate * MOST_SECONDS))
        growing: _Growing | None = None
        for number, (seen, begins) in enumerate(self._delayed()):
            if growing is not None and (begins or growing.frames == most):
                yield growing.clip()
                growing = None
            if growing is None:
                growing = _Growing(number, stride, stride / rate, self._reformatter)
            growing.add(seen)
        if growing is not None:
            yield growing.clip()

    def probe(self) -> Probe:
        """Of the whole; to be asked for after the last clip."""
        fps, variable = rate_of(self._path, self._times)
        return Probe(
            frames=len(self._times),
            fps=fps,
            variable_rate=variable,
            rotation=self._rotation,
            colour_range=self._colour_range,
            codec=self._codec,
            bits_a_second=8 * self._path.stat().st_size * fps / len(self._times),
        )

    def _delayed(self) -> Iterator[tuple[_Seen, bool]]:
        """Every frame, as soon as it is known whether it begins a shot."""
        waiting: collections.deque[_Seen] = collections.deque()
        cuts: set[int] = set()
        given = 0
        for frame, width in decoded(self._path, vectors=True):
            seen = self._seen(frame, width)
            cuts.update(self._finder.found(seen.picture))
            waiting.append(seen)
            if len(waiting) > self._finder.lag:
                yield waiting.popleft(), given in cuts
                given += 1
        for seen in waiting:
            yield seen, given in cuts
            given += 1

    def _seen(self, frame: Any, width: int) -> _Seen:
        import cv2

        if not self._times:
            self._rotation = quarter_turns(frame) * 90
            self._colour_range = COLOUR_RANGES.get(int(frame.color_range), "unknown")
        time = frame.time if frame.time is not None else float(len(self._times))
        self._times.append(time)
        picture = small_picture(frame, frame.width, self._reformatter)
        brightness = cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY)
        return _Seen(frame, width, time, picture, brightness, _motion(frame))


class _Growing:
    """A clip while its frames come in."""

    def __init__(self, first: int, stride: int, seconds: float, reformatter: Any) -> None:
        self._first, self._stride, self._seconds = first, stride, seconds
        self._reformatter = reformatter
        self._pictures: list[np.ndarray] = []
        self._planes: list[np.ndarray] = []
        self._changes: list[float] = []
        self._motion: list[float] = []
        self._averages: list[np.ndarray] = []
        self._sum = np.zeros((1, 1), np.float32)
        self._last: _Seen | None = None
        self._start = 0.0

    @property
    def frames(self) -> int:
        return len(self._motion)

    def add(self, seen: _Seen) -> None:
        import cv2

        if self._last is None:
            self._start = seen.time
        else:
            difference = cv2.absdiff(seen.brightness, self._last.brightness)
            self._changes.append(float(cv2.mean(difference)[0]) / 255)
        if self.frames % self._stride == 0:
            turns = quarter_turns(seen.frame)
            # Ten times as fast as NumPy copies a picture whose colours are turned around.
            colours = cv2.cvtColor(seen.picture, cv2.COLOR_BGR2RGB)
            self._pictures.append(np.rot90(colours, turns))
            if self.frames % (self._stride * PLANE_SAMPLES) == 0:
                plane = self._reformatter.reformat(
                    seen.frame, width=seen.width, height=seen.frame.height, format="gray"
                )
                self._planes.append(np.rot90(plane.to_ndarray(), turns))
        if self.frames % self._stride == 0:
            self._average()
            self._sum = np.zeros(seen.brightness.shape, np.float32)
        cv2.accumulate(seen.brightness, self._sum)
        self._motion.append(seen.motion)
        self._last = seen

    def _average(self) -> None:
        """Ends the stretch of time that is averaged; a short one at the end of a clip is none."""
        frames = self.frames - len(self._averages) * self._stride
        if frames and (2 * frames >= self._stride or not self._averages):
            assert self._last is not None
            mean = np.rint(self._sum / frames).astype(np.uint8)
            self._averages.append(np.rot90(mean, quarter_turns(self._last.frame)))

    def clip(self) -> Clip:
        assert self._last is not None
        self._average()
        return Clip(
            first=self._first,
            frames=self.frames,
            start=self._start,
            end=self._last.time,
            seconds=self._seconds,
            pictures=np.stack(self._pictures),
            averages=np.stack(self._averages),
            planes=np.stack(self._planes),
            changes=np.asarray(self._changes, np.float32),
            motion=np.asarray(self._motion, np.float32),
        )


def image_clip(path: Path) -> Clip:
    """An image as a clip of one frame.

    Raises:
        MediaError: unreadable, truncated, or too large to decode safely.
    """
    import cv2

    image = read_image(path)
    height, width = image.shape[:2]
    shrink = max(1, min(height, width) // 256)
    size = (max(1, width // shrink), max(1, height // shrink))
    picture = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    return Clip(
        first=0,
        frames=1,
        start=0.0,
        end=0.0,
        seconds=SAMPLE_SECONDS,
        pictures=picture[None],
        averages=cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY)[None],
        planes=cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)[None],
        changes=np.zeros(0, np.float32),
        motion=np.zeros(1, np.float32),
    )


def _declared(path: Path) -> tuple[float, str]:
    """Frames a second, 25 where the file says nothing sensible, and the name of the codec.

    Raises:
        MediaError: it is no video.
    """
    with opened(path) as container:
        stream = container.streams.video[0]
        rate = float(stream.average_rate or 0)
        return (rate if 1 <= rate <= 1000 else 25.0), stream.codec_context.name


def _motion(frame: Any) -> float:
    """Mean length of the motion vectors of a frame, in picture heights."""
    vectors = frame.side_data.get("MOTION_VECTORS")
    if vectors is None:
        return float("nan")
    table = vectors.to_ndarray()
    if not len(table):
        return 0.0
    across = table["motion_x"] / np.maximum(table["motion_scale"], 1)
    down = table["motion_y"] / np.maximum(table["motion_scale"], 1)
    area = table["w"].astype(np.float64) * table["h"]
    return float((np.hypot(across, down) * area).sum() / area.sum() / frame.height)
