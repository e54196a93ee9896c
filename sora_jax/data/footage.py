"""Files of people: decoding videos and images that may be anything, and finding cuts."""

import dataclasses
import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sora_jax.data.formats import FormatError, open_image, open_video
from sora_jax.data.schema import DataError

MAX_PIXELS = 10**8  # of one picture; a small file can claim any size
DETECTOR_SIDE = 256  # cuts are looked for in frames of about this size


class MediaError(DataError):
    """A file that cannot be used. `reason` is a fixed phrase, `detail` says which or how."""

    def __init__(self, path: Path, reason: str, detail: str) -> None:
        super().__init__(f"{path}: {reason} ({detail})")
        self.reason, self.detail = reason, detail


@dataclasses.dataclass(frozen=True)
class Scan:
    """What one pass over all frames of a video tells."""

    frames: int
    height: int  # as displayed: rotated, with square pixels
    width: int
    fps: float  # average, also where the rate varies
    variable_rate: bool
    cuts: tuple[int, ...]  # frames that begin a new shot, the first excluded

    def shots(self) -> list[tuple[int, int]]:
        """Half-open ranges of frames."""
        edges = [0, *self.cuts, self.frames]
        return list(itertools.pairwise(edges))


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """Decodes an image, upright by its EXIF orientation.

    Raises:
        MediaError: unreadable, truncated, or too large to decode safely.
    """
    from PIL import Image, ImageOps

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is ours
            image = open_image(path)
    except Image.DecompressionBombError as error:
        raise MediaError(path, "too large", str(error)) from error
    except (OSError, SyntaxError, ValueError) as error:
        raise MediaError(path, "unreadable", _first_line(error)) from error
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise MediaError(path, "too large", f"{image.height}x{image.width} pixels")
        try:
            image.load()
            upright = ImageOps.exif_transpose(image)
        except (OSError, SyntaxError, ValueError, EOFError) as error:
            raise MediaError(path, "truncated", _first_line(error)) from error
        if upright.mode.startswith("I"):  # 16-bit grey; convert() would clip, not scale
            grey = (np.asarray(upright).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return np.repeat(grey[..., None], 3, axis=-1)
        return np.asarray(upright.convert("RGB"))


def read_frames(path: Path) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
    """Decodes a video frame by frame, upright and with square pixels, as `picture_of`.

    Raises:
        MediaError: unreadable; truncated or damaged, after the frames before.
    """
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()
    for frame, width in decoded(path):
        yield picture_of(frame, width, reformatter)


def picture_of(frame: Any, width: int, reformatter: Any) -> UInt8[np.ndarray, "h w 3"]:
    """A PyAV frame upright, `width` wide before it is turned, as RGB of 8 bits: grey three times,
    finer numbers scaled, what is transparent over black. `reformatter` as `small_picture`."""
    wanted = {"width": width, "height": frame.height}
    if any(component.is_alpha for component in frame.format.components):
        layers = reformatter.reformat(frame, format="rgba", **wanted).to_ndarray()
        colours, alpha = layers[..., :3].astype(np.uint16), layers[..., 3:].astype(np.uint16)
        picture = ((colours * alpha + 127) // 255).astype(np.uint8)
    else:
        picture = reformatter.reformat(frame, format="rgb24", **wanted).to_ndarray()
    return np.ascontiguousarray(np.rot90(picture, quarter_turns(frame)))


def picture_changes(frame: Any) -> tuple[str, ...]:
    """What `picture_of` does to a PyAV frame, beyond reading its colours, in words."""
    components = frame.format.components
    changes = []
    bits = max(component.bits for component in components)
    if bits > 8:
        changes.append(f"scaled from {bits} bits to 8")
    colours = sum(not component.is_alpha for component in components)
    if colours == 1 and not frame.format.has_palette:
        changes.append("grey as red, green and blue")
    if any(component.is_alpha for component in components):
        changes.append("transparency laid over black")
    return tuple(changes)


def scan_video(path: Path) -> Scan:
    """Decodes a whole video once: counts its frames, finds its cuts, and proves it is complete.

    Raises:
        MediaError: unreadable, truncated, damaged, or too large to decode safely.
    """
    from av.video.reformatter import VideoReformatter

    finder, reformatter = CutFinder(), VideoReformatter()
    times: list[float] = []
    cuts: list[int] = []
    height = width = 0
    for frame, display_width in decoded(path):
        if not times:
            height, width = frame.height, display_width
            if quarter_turns(frame) % 2:
                height, width = width, height
        cuts += finder.found(small_picture(frame, frame.width, reformatter))
        times.append(frame.time if frame.time is not None else float(len(times)))
    fps, variable = rate_of(path, times)
    return Scan(len(times), height, width, fps, variable, tuple(cuts))


def small_picture(frame: Any, width: int, reformatter: Any) -> UInt8[np.ndarray, "h w 3"]:
    """A PyAV frame of about 256 pixels a side, as blue, green and red, not turned upright.

    Args:
        frame: never enlarged.
        width: that its whole height is to have.
        reformatter: PyAV's, one for all frames of a video.
    """
    from av.video.reformatter import Interpolation

    shrink = max(1, min(frame.height, width) // DETECTOR_SIDE)
    small = reformatter.reformat(
        frame,
        width=width // shrink,
        height=frame.height // shrink,
        format="bgr24",
        interpolation=Interpolation.AREA,
    )
    picture: UInt8[np.ndarray, "h w 3"] = small.to_ndarray()
    return picture


class CutFinder:
    """PySceneDetect's adaptive detector, asked about one frame after another."""

    def __init__(self) -> None:
        import scenedetect

        self._timecode = scenedetect.FrameTimecode
        # By default a shot has 15 frames or more: shorter ones would hide cuts inside clips.
        self._detector = scenedetect.AdaptiveDetector(min_scene_len=1)
        self._frames = 0

    @property
    def lag(self) -> int:
        """A frame is known to begin a shot, or not to, once so many more were seen."""
        return int(self._detector.event_buffer_length)

    def found(self, picture: UInt8[np.ndarray, "h w 3"]) -> list[int]:
        """Takes the next frame; returns the frames now known to begin a shot, by number."""
        # The detector counts in frames, so that its rate is of no matter.
        cuts = self._detector.process_frame(self._timecode(self._frames, fps=25.0), picture)
        self._frames += 1
        return [int(cut.frame_num) for cut in cuts]


def opened(path: Path) -> Any:
    """PyAV's container of a file that has a video stream.

    Raises:
        MediaError: unreadable.
    """
    import av

    try:
        container = open_video(path)
    except av.FFmpegError as error:
        raise MediaError(path, "unreadable", str(error.strerror)) from error
    except FormatError as error:
        raise MediaError(path, "unreadable", str(error)) from error
    if not container.streams.video:
        container.close()
        raise MediaError(path, "unreadable", "it has no video stream")
    return container


def decoded(path: Path, *, vectors: bool = False) -> Iterator[tuple[Any, int]]:
    """PyAV frames of the first video stream, each with the width that makes its pixels square.

    `vectors` keeps the codec's motion vectors beside the frames.

    Raises:
        MediaError: unreadable, damaged, too large, or, at the end, frames are missing there.
    """
    import av

    decoded = 0
    try:
        with opened(path) as container:
            stream = container.streams.video[0]
            if stream.width * stream.height > MAX_PIXELS:
                raise MediaError(path, "too large", f"{stream.height}x{stream.width} pixels")
            stream.thread_type = "AUTO"
            if vectors:
                # Threads that decode several frames at once write vectors of one into another.
                stream.thread_type = "SLICE"
                stream.codec_context.options = {"flags2": "+export_mvs"}
            declared, seconds = stream.frames, (container.duration or 0) / av.time_base
            end = 0.0
            for frame in container.decode(stream):
                if frame.is_corrupt:
                    raise MediaError(path, "damaged", f"at frame {decoded}")
                decoded += 1
                end = max(end, (frame.time or 0.0))
                yield frame, round(frame.width * (stream.sample_aspect_ratio or 1))
    except av.FFmpegError as error:
        reason = "truncated" if decoded else "unreadable"
        after = f" after {decoded} frames" if decoded else ""
        raise MediaError(path, reason, f"{error.strerror}{after}") from error
    if not decoded:
        raise MediaError(path, "unreadable", "no frame can be decoded")
    # Damage at the end is no error to FFmpeg: it stops early. Some slack, because an edit list
    # may hide a few frames of an intact file.
    if declared and decoded < 0.95 * declared - 1:
        raise MediaError(path, "truncated", f"{decoded} of {declared} frames can be decoded")
    if not declared and end < 0.9 * seconds - 1:
        raise MediaError(path, "truncated", f"{end:.1f} of {seconds:.1f} seconds can be decoded")


def rate_of(path: Path, times: list[float]) -> tuple[float, bool]:
    """Average frames per second, and whether the frames are spaced unevenly."""
    if len(times) > 1 and times[-1] > times[0]:
        steps = np.diff(times)
        mean = float((len(times) - 1) / (times[-1] - times[0]))
        uneven = bool(steps.max() > 1.5 * np.median(steps) + 1e-3)
        return round(mean, 3), uneven
    with opened(path) as container:
        rate = container.streams.video[0].average_rate
    return (float(rate) if rate else 1.0), False


def quarter_turns(frame: Any) -> int:
    """Anticlockwise quarter turns that stand the frame upright, as np.rot90 counts them."""
    return round((frame.rotation or 0) / 90) % 4


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
