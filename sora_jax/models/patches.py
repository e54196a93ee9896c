"""Latent video <-> spacetime patches, and the coordinates that make a patch a token."""

import dataclasses

import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Int


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


def frame_times(frame: Int[Array, " n"], temporal: int) -> Float[Array, " n"]:
    """Centre of each latent frame, in pixel frames: the first stands for frame 0 alone, the k-th
    for the `temporal` frames that end at frame temporal * k."""
    return jnp.maximum(temporal * frame.astype(jnp.float32) - (temporal - 1) / 2, 0.0)


def coordinates(grid: Grid, temporal: int, tokens: int | None = None) -> Float[Array, "n 3"]:
    """(time in pixel frames, y, x) of each token; y and x count patches from the picture's centre.

    Divide the first column by the frame rate to have seconds. `tokens`: as many; those past the
    grid's go on as if it had more frames. All is counted, so that none of it is a constant of a
    program, and each device makes its own tokens alone.
    """
    number = jnp.arange(grid.tokens if tokens is None else tokens)
    y, x = number // grid.width % grid.height, number % grid.width
    time = frame_times(token_frames(grid, tokens), temporal)
    return jnp.stack([time, y - (grid.height - 1) / 2, x - (grid.width - 1) / 2], -1)


def token_frames(grid: Grid, tokens: int | None = None) -> Int[Array, " n"]:
    """Latent frame of each token; `tokens` as in `coordinates`."""
    number = jnp.arange(grid.tokens if tokens is None else tokens, dtype=jnp.int32)
    return number // (grid.height * grid.width)
