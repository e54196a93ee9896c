"""Latent video <-> spacetime patches, and the coordinates that make a patch a token."""

import dataclasses

import numpy as np
from einops import rearrange
from jaxtyping import Array, Float


@dataclasses.dataclass(frozen=True)
class Grid:
    """Size of a clip in patches: `frames` latent frames of `height` x `width` patches."""

    frames: int
    height: int
    width: int

    @property
    def tokens(self) -> int:
        return self.frames * self.height * self.width


def patchify(latents: Float[Array, "b t h w c"], patch: int) -> Float[Array, "b n p"]:
    """Square patches of one latent frame each, in (time, y, x) order; p = patch * patch * c."""
    return rearrange(latents, "b t (h i) (w j) c -> b (t h w) (i j c)", i=patch, j=patch)


def unpatchify(tokens: Float[Array, "b n p"], grid: Grid, patch: int) -> Float[Array, "b t h w c"]:
    """Inverse of `patchify`, given the grid."""
    return rearrange(
        tokens,
        "b (t h w) (i j c) -> b t (h i) (w j) c",
        t=grid.frames,
        h=grid.height,
        i=patch,
        j=patch,
    )


def frame_times(frames: int, temporal: int) -> Float[np.ndarray, " t"]:
    """Centre of each latent frame, in pixel frames: the first stands for frame 0 alone, the k-th
    for the `temporal` frames that end at frame temporal * k."""
    times = temporal * np.arange(frames) - (temporal - 1) / 2
    return np.maximum(times, 0.0).astype(np.float32)


def coordinates(grid: Grid, temporal: int) -> Float[np.ndarray, "n 3"]:
    """(time in pixel frames, y, x) of each token; y and x count patches from the picture's centre.

    Divide the first column by the frame rate to have seconds.
    """
    y = np.arange(grid.height, dtype=np.float32) - (grid.height - 1) / 2
    x = np.arange(grid.width, dtype=np.float32) - (grid.width - 1) / 2
    axes = np.meshgrid(frame_times(grid.frames, temporal), y, x, indexing="ij")
    return np.stack(axes, -1).reshape(-1, 3)


def token_frames(grid: Grid) -> np.ndarray:
    """Latent frame of each token, int32 [n]."""
    return np.repeat(np.arange(grid.frames, dtype=np.int32), grid.height * grid.width)
