"""Pixels <-> normalised latent tokens: where the autoencoder meets the transformer's tokens."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Bool, Float

from sora_jax.models.patches import Grid, coordinates, patchify, token_frames
from sora_jax.models.vae import VAE, to_unit
from sora_jax.types import Appended, EncodedBatch, LatentBatch, Text, VideoBatch

AnyArray = Array | np.ndarray


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class LatentStatistics:
    """Mean and deviation of each latent channel over a training set; kept with the autoencoder."""

    mean: Float[AnyArray, " c"]
    deviation: Float[AnyArray, " c"]


@dataclasses.dataclass(frozen=True)
class AppendedClip:
    """Encoded clips, of `grid`, that are given beside each one of a batch."""

    latents: Float[AnyArray, "b n p"]  # normalised latent patches
    grid: Grid
    seconds: Float[AnyArray, " b"]  # from the first frame of the clip it is beside to its own
    is_used: Bool[AnyArray, " b"]


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


def appended_tokens(
    clips: Sequence[AppendedClip], fps: Float[AnyArray, " b"], temporal: int, channels: int
) -> Appended:
    """Tokens, of so many channels, of clips that are given beside those of a batch at `fps`; in
    NumPy, but for latents that are not, if `fps` is."""
    xp, rows = fps.__array_namespace__(), len(fps)
    none: Any = [np.zeros((rows, 0, width), np.float32) for width in (channels, 3)]
    none += [np.zeros((rows, 0), np.int32)] * 2
    parts = [Appended(*none)]
    for number, clip in enumerate(clips, 1):
        coordinates = token_coordinates(clip.grid, temporal, fps)
        later = clip.seconds[:, None, None] * xp.asarray([1.0, 0.0, 0.0], "float32")
        latents: Any = clip.latents
        count = (rows, clip.grid.tokens)
        parts.append(
            Appended(
                latents=latents,
                coordinates=coordinates + later,
                frames=xp.broadcast_to(token_frames(clip.grid, xp=xp), count),
                number=xp.broadcast_to(xp.where(clip.is_used, number, 0)[:, None], count),
            )
        )

    def joined(*each: AnyArray) -> Any:
        on_host = all(isinstance(x, np.ndarray) for x in each)
        return np.concatenate(each, 1) if on_host else jnp.concatenate(each, 1)

    tokens: Appended = jax.tree.map(joined, *parts)
    return dataclasses.replace(tokens, number=tokens.number.astype("int32"))


def lay_out(
    batch: EncodedBatch, grid: Grid, temporal: int, tokens: int, clips: int = 1
) -> LatentBatch:
    """Encoded clips of `grid` as rows of their shape class, with coordinates, segments and frames;
    in NumPy if the batch is.

    Args:
        batch: clips, of which as many as a row holds follow each other.
        grid: of each of them.
        temporal: pixel frames per latent frame.
        tokens: that a row has; those behind its clips are padding.
        clips: that a row has places for.
    """
    xp = batch.latents.__array_namespace__()
    count, appended = len(batch.latents), batch.appended
    of_clip = grid.tokens + (0 if appended is None else appended.number.shape[1])
    held = min(clips, tokens // of_clip)
    segment = xp.arange(count, dtype="int32")[:, None] % held + 1

    def in_rows(x: Any, length: int) -> Any:
        """[clip, n, ...] as rows of `length`."""
        x = rearrange(x, "(b s) n ... -> b (s n) ...", s=held)
        return xp.pad(x, ((0, 0), (0, length - x.shape[1]), *((0, 0),) * (x.ndim - 2)))

    def of_tokens(x: Any, of_appended: Any = None) -> Any:
        x = xp.broadcast_to(x, (count, grid.tokens, *x.shape[2:]))
        return in_rows(x if appended is None else xp.concatenate([x, of_appended], 1), tokens)

    def of_captions(x: Any) -> Any:
        return in_rows(x, clips * x.shape[1])

    text: Any = batch.text
    if isinstance(text, Text):
        text = Text(
            of_captions(text.embeddings), of_captions(xp.where(text.segments > 0, segment, 0))
        )
    else:
        text = of_captions(text)
    none: Any = (None, None, None, xp.zeros((count, 0), "int32"))
    beside = Appended(*none) if appended is None else appended
    return LatentBatch(
        latents=of_tokens(batch.latents, beside.latents),
        coordinates=of_tokens(token_coordinates(grid, temporal, batch.fps), beside.coordinates),
        segments=of_tokens(segment, xp.where(beside.number > 0, segment, 0)),
        frames=of_tokens(token_frames(grid, xp=xp)[None], beside.frames),
        appended=of_tokens(xp.zeros((1, 1), "int32"), beside.number),
        text=text,
        example_id=in_rows(batch.example_id[:, None], clips),
    )
