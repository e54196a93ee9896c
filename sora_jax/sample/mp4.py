"""MP4 that every browser plays, written a few frames at a time, and segments joined to one file."""

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sora_jax.data.formats import open_video
from sora_jax.data.media import av_rate
from sora_jax.files import writing
from sora_jax.processes import is_first
from sora_jax.sample.metadata import COMMENT, as_comment

QUALITY = 12  # x264's constant rate factor: no difference that one sees


class Mp4Writer:
    """H.264 with half the colour resolution (yuv420p, BT.709), of frames as they come.

    Equal frames and metadata give equal bytes on every machine. It is for people: read scores off
    arrays.
    """

    def __init__(
        self,
        file: Any,
        fps: float,
        height: int,
        width: int,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        """`file`: a path, or open to write and seek. Sides are even: H.264 halves the colours'.
        `metadata`: what `read_metadata` finds in the file."""
        import av
        from av.video.reformatter import VideoReformatter

        self._container = av.open(file, "w", format="mp4")
        if metadata is not None:
            self._container.metadata[COMMENT] = as_comment(metadata)
        self._stream: Any = self._container.add_stream(
            "libx264",
            rate=av_rate(fps),
            options={
                "crf": str(QUALITY),
                "preset": "veryfast",
                # Equal bytes on every machine; and told colours, or players guess them by size.
                "x264-params": "cpu-independent=1:threads=1:"
                "colorprim=bt709:transfer=bt709:colormatrix=bt709:range=tv",
            },
        )
        self._stream.height, self._stream.width = height, width
        self._stream.pix_fmt = "yuv420p"
        self._reformatter = VideoReformatter()

    def write(self, video: UInt8[np.ndarray, "t h w 3"]) -> None:
        """Adds frames behind those before."""
        import av
        from av.video.reformatter import ColorRange, Colorspace

        for image in video:
            frame = self._reformatter.reformat(
                av.VideoFrame.from_ndarray(image, format="rgb24"),
                format="yuv420p",
                dst_colorspace=Colorspace.ITU709,
                dst_color_range=ColorRange.MPEG,
            )
            self._container.mux(self._stream.encode(frame))

    def __enter__(self) -> "Mp4Writer":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self._container.mux(self._stream.encode(None))
        self._container.close()


@contextlib.contextmanager
def write_segment(
    path: Path, fps: float, height: int, width: int
) -> Iterator[Callable[[UInt8[np.ndarray, "t h w 3"]], None]]:
    """What writes frames into an MP4 at `path`, which is there once it is whole; the first of all
    processes does."""
    if not is_first():
        yield lambda video: None
        return
    with writing(path) as partial, Mp4Writer(partial, fps, height, width) as writer:
        yield writer.write


def join_segments(
    segments: Sequence[tuple[Path, int]],
    output: Any,
    fps: float,
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Writes segments of `Mp4Writer`, each given with its frames, one behind the other, as they are
    encoded: nothing is decoded, and each begins with a picture that stands by itself.

    `output` and `metadata` as `Mp4Writer` takes them; metadata of segments is left behind. It needs
    the memory of an index of all frames.
    """
    import av

    with av.open(output, "w", format="mp4") as joined:
        if metadata is not None:
            joined.metadata[COMMENT] = as_comment(metadata)
        stream: Any = None
        before = 0
        for path, frames in segments:
            with open_video(path) as container:
                source = container.streams.video[0]
                if stream is None:
                    stream = joined.add_stream_from_template(source)
                assert source.time_base is not None
                shift = round(before / av_rate(fps) / source.time_base)
                for packet in container.demux(source):
                    if packet.dts is None or packet.pts is None:  # what ends a stream
                        continue
                    packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                    packet.stream = stream
                    joined.mux(packet)
            before += frames
