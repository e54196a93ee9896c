"""True clips made worse in one known way, to see what a metric makes of it."""

from collections.abc import Callable, Sequence
from typing import overload

import numpy as np
from jaxtyping import Float, UInt8

Video = UInt8[np.ndarray, "t h w 3"]

GRAIN_BLUR = 0.6  # pixels, of a Gaussian
GRAIN_NOISE = 0.03  # of full brightness


def with_grain(video: Video, seed: int) -> Video:
    """As a codec or an autoencoder leaves it: slightly blurred in each frame, with fine noise. What
    it shows, and how that moves, stays as it was."""
    blurred = _blurred(_blurred(video.astype(np.float32), 1), 2)
    noise = np.random.default_rng(seed).normal(0, 255 * GRAIN_NOISE, video.shape)
    return np.clip(np.round(blurred + noise), 0, 255).astype(np.uint8)


def shuffled(video: Video, seed: int) -> Video:
    """Its frames in a random order: each as true as before, and no motion is left."""
    return video[np.random.default_rng(seed).permutation(len(video))]


def _blurred(video: Float[np.ndarray, "t h w 3"], axis: int) -> Float[np.ndarray, "t h w 3"]:
    reach = 2
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / GRAIN_BLUR) ** 2)
    margins = [(reach, reach) if each == axis else (0, 0) for each in range(video.ndim)]
    padded = np.pad(video, margins, mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, len(weights), axis)
    return np.asarray(windows @ (weights / weights.sum()).astype(np.float32))


class Degraded(Sequence[Video]):
    """Clips of a sequence, each made worse as it is read. The seed of a clip is its index there."""

    def __init__(
        self, clips: Sequence[Video], indices: Sequence[int], change: Callable[[Video, int], Video]
    ):
        self._clips, self._indices, self._change = clips, indices, change

    def __len__(self) -> int:
        return len(self._indices)

    @overload
    def __getitem__(self, index: int) -> Video: ...

    @overload
    def __getitem__(self, index: slice) -> "Degraded": ...

    def __getitem__(self, index: int | slice) -> "Video | Degraded":
        if isinstance(index, slice):
            return Degraded(self._clips, self._indices[index], self._change)
        chosen = self._indices[index]
        return self._change(self._clips[chosen], chosen)
