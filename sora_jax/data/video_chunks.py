"""A video of any length, read in chunks of pictures whose sides an autoencoder divides."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from sora_jax.data.footage import (
    MediaError,
    decoded,
    picture_changes,
    picture_of,
    quarter_turns,
)


class VideoChunks:
    """A video's pictures, upright RGB of 8 bits with their edges repeated to multiples of `cell`.

    `height` and `width` are without the edges, of which there are `missing`; `changes` says in
    words what is done to the pictures, and `times` has those of the frames read so far, in seconds.

    Raises MediaError, here and while frames are read, if the video cannot be read, is damaged, or
    changes its size.
    """

    def __init__(self, path: Path, cell: int) -> None:
        self._path, self._cell = path, cell
        self.times: list[float] = []
        first, width = next(decoded(path))
        self.height, self.width = first.height, width
        if quarter_turns(first) % 2:
            self.height, self.width = width, first.height
        self.changes = list(picture_changes(first))
        self.missing = (-self.height % cell, -self.width % cell)
        if any(self.missing):
            rows, columns = self.missing
            self.changes.append(
                f"edges repeated from {self.height}x{self.width} to {self.height + rows}x"
                f"{self.width + columns} (height x width), whole cells of {cell}, and cut again "
                "when it is decoded"
            )

    @property
    def frames(self) -> int:
        """How many were read."""
        return len(self.times)

    def chunks(self, step: int) -> Iterator[UInt8[np.ndarray, "1 t h w 3"]]:
        """The first frame, then `step` at a time; the last may be fewer."""
        pictures: list[np.ndarray] = []
        for picture in self._pictures():
            pictures.append(picture)
            if len(pictures) == step or self.frames == 1:
                yield np.stack(pictures)[None]
                pictures = []
        if pictures:
            yield np.stack(pictures)[None]

    def _pictures(self) -> Iterator[UInt8[np.ndarray, "h w 3"]]:
        from av.video.reformatter import VideoReformatter

        reformatter = VideoReformatter()
        edges = (*((0, missing) for missing in self.missing), (0, 0))
        for frame, width in decoded(self._path):
            picture = picture_of(frame, width, reformatter)
            if picture.shape[:2] != (self.height, self.width):
                raise MediaError(
                    self._path,
                    "changes its size",
                    f"from {self.height}x{self.width} to {picture.shape[0]}x{picture.shape[1]} at "
                    f"frame {self.frames}",
                )
            self.times.append(frame.time if frame.time is not None else float(self.frames))
            yield np.pad(picture, edges, mode="edge")
