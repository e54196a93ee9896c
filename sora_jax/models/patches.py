"""Latent video <-> spacetime patches, and the coordinates that make a patch a token."""

import dataclasses
from typing import Any

import jax.numpy as jnp
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


def patchify(
    latents: Float[Array | np.ndarray, "b t h w c"], patch: int
) -> Float[Array | np.ndarray, "b n p"]:
    """Square patches of one latent frame each, in (time, y, x) order; p = patch * patch * c. In
    NumPy if the latents are."""
    return rearrange(latents, "b t (h i) (w j) c -> b (t h w) (i j c)", i=patch, j=patch)


def unpatchify(
    tokens: Float[Array | np.ndarray, "b n p"], grid: Grid, patch: int
) -> Float[Array | np.ndarray, "b t h w c"]:
    """Inverse of `patchify`, given the grid."""
    return rearrange(
        tokens,
        "b (t h w) (i j c) -> b t (h i) (w j) c",
        t=grid.frames,
        h=grid.height,
        i=patch,
        j=patch,
    )


def frame_times(frame: Any, temporal: int) -> Any:
    """Centre of each latent frame [n], in pixel frames: the first stands for frame 0 alone, the
    k-th for the `temporal` frames that end at frame temporal * k."""
    return (temporal * frame.astype("float32") - (temporal - 1) / 2).clip(min=0.0)


def coordinates(grid: Grid, temporal: int, tokens: int | None = None, xp: Any = jnp) -> Any:
    """(time in pixel frames, y, x) of each token [n, 3], float32; y and x count patches from the
    picture's centre.

    Divide the first column by the frame rate to have seconds. `tokens`: as many; those past the
    grid's go on as if it had more frames. All is counted, so that none of it is a constant of a
    program, and each device makes its own tokens alone; or by NumPy as `xp`, without a program.
    """
    number = xp.arange(grid.tokens if tokens is None else tokens, dtype="int32")
    y, x = number // grid.width % grid.height, number % grid.width
    time = frame_times(token_frames(grid, tokens, xp), temporal)
    y, x = (y - (grid.height - 1) / 2), (x - (grid.width - 1) / 2)
    return xp.stack([time, y.astype("float32"), x.astype("float32")], -1)


def token_frames(grid: Grid, tokens: int | None = None, xp: Any = jnp) -> Any:
    """Latent frame of each token, int32 [n]; `tokens` and `xp` as in `coordinates`."""
    number = xp.arange(grid.tokens if tokens is None else tokens, dtype="int32")
    return number // (grid.height * grid.width)
