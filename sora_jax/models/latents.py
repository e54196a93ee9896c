"""Pixels <-> normalised latent tokens: where the autoencoder meets the transformer's tokens."""

import dataclasses
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Float

from sora_jax.models.patches import Grid, coordinates, patchify, token_frames
from sora_jax.models.vae import VAE, to_unit
from sora_jax.types import EncodedBatch, LatentBatch, VideoBatch

AnyArray = Array | np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LatentStatistics:
    """Mean and deviation of each latent channel over a training set; kept with the autoencoder."""

    mean: Float[AnyArray, " c"]
    deviation: Float[AnyArray, " c"]


def grid_of(vae: VAE, frames: int, height: int, width: int, patch: int) -> Grid:
    """Token grid of a clip of frames x height x width pixels."""
    cell = vae.config.spatial * patch
    return Grid((frames - 1) // vae.config.temporal + 1, height // cell, width // cell)


def encode_tokens(
    vae: VAE, statistics: LatentStatistics, video: Array, patch: int
) -> Float[Array, "b n p"]:
    """Normalised latent patches (posterior means) of uint8 clips [b t h w 3]."""
    mean, _ = vae.encode(to_unit(video))
    tokens: Any = patchify((mean - statistics.mean) / statistics.deviation, patch)
    return tokens


def stored_moments(vae: VAE, video: Array) -> tuple[Array, Array]:
    """Mean and log-variance of the latents of uint8 clips [b t h w 3], as sets of latents hold
    them: bfloat16 [b s g v c], not normalised."""
    mean, log_variance = vae.encode(to_unit(video))
    return mean.astype("bfloat16"), log_variance.astype("bfloat16")


def stored_tokens(
    statistics: LatentStatistics, patch: int, mean: Float[np.ndarray, "b t h w c"]
) -> Float[np.ndarray, "b n p"]:
    """As `encode_tokens`, of means as sets of latents hold them; on the host, without a program.

    Channels of a patch are normalised together: rows of 4 to 16 numbers would cost more than all
    else that is done here.
    """
    cells = patch**2
    tokens: Any = patchify(mean, patch).astype(np.float32)
    tokens -= np.tile(np.asarray(statistics.mean), cells)
    tokens /= np.tile(np.asarray(statistics.deviation), cells)
    return tokens


def token_coordinates(
    grid: Grid, temporal: int, fps: Float[AnyArray, " b"], tokens: int | None = None
) -> Any:
    """(seconds, y, x) of each token of clips at `fps` frames per second, [b, n, 3]. In NumPy if
    `fps` is one: then nothing is compiled for the grid. `tokens` as in `patches.coordinates`."""
    xp = fps.__array_namespace__()
    base = coordinates(grid, temporal, tokens, xp)
    seconds = base[None, :, :1] / fps[:, None, None]
    places = xp.broadcast_to(base[:, 1:], (len(fps), *base[:, 1:].shape))
    return xp.concatenate([seconds, places], -1)


def encode_batch(
    vae: VAE, statistics: LatentStatistics, batch: VideoBatch, patch: int
) -> EncodedBatch:
    """A batch of one bucket after the autoencoder."""
    latents = encode_tokens(vae, statistics, batch.video, patch)
    return EncodedBatch(latents, batch.text, batch.fps, batch.example_id)


def lay_out(batch: EncodedBatch, grid: Grid, temporal: int, tokens: int) -> LatentBatch:
    """Encoded clips of `grid` with their coordinates, segments and frames, padded to the `tokens` a
    row of their shape class has; in NumPy if the batch is. `temporal`: pixel frames per latent
    frame."""
    b = batch.latents.shape[0]
    xp = batch.latents.__array_namespace__()

    def pad(x: Any) -> Any:
        return xp.pad(x, ((0, 0), (0, tokens - grid.tokens), *((0, 0),) * (x.ndim - 2)))

    def rows(x: Any) -> Any:
        return xp.broadcast_to(x, (b, *x.shape))

    return LatentBatch(
        latents=pad(batch.latents),
        coordinates=pad(token_coordinates(grid, temporal, batch.fps)),
        segments=pad(rows(xp.ones(grid.tokens, "int32"))),
        frames=pad(rows(token_frames(grid, xp=xp))),
        text=batch.text,
        example_id=batch.example_id,
    )
