"""Pixels <-> latent tokens, a few latent frames at a time: any duration in the same memory.

Nothing of the autoencoder looks ahead or pools over time, so what it hands on is all that the next
frames need, and the numbers are those of the whole clip at once. Where clips are fewer than devices
their pictures are split as well: convolutions then exchange the cells at their edges.
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from sora_jax.models.latents import LatentStatistics
from sora_jax.models.patches import Grid, patchify, unpatchify
from sora_jax.models.vae import VAE, State, to_uint8, to_unit
from sora_jax.processes import to_host
from sora_jax.sharding.mesh import picture_mesh
from sora_jax.sharding.rules import clips_sharding, constrain, replicated, rows_sharding


def chunk_lengths(latent_frames: int, most: int) -> list[int]:
    """Latent frames of each chunk of a clip: `most`, after a first one of 1 to `most`."""
    first = min(latent_frames, 1 + (latent_frames - 1) % most)
    return [first] + [most] * ((latent_frames - first) // most)


@functools.partial(jax.jit, donate_argnames="state")
def decode_chunk(
    vae: VAE, statistics: LatentStatistics, latents: Float[Array, "b s g v c"], state: State
) -> tuple[UInt8[Array, "b t h w 3"], State]:
    """Pixels of the next normalised latents; state None begins a clip."""
    latents = _split(latents) * statistics.deviation + statistics.mean
    video, state = vae.decode_chunk(latents, state)
    return _split(to_uint8(video)), jax.tree.map(_split, state)


@functools.partial(jax.jit, donate_argnames="state")
def encode_chunk(
    vae: VAE, statistics: LatentStatistics, video: UInt8[Array, "b t h w 3"], state: State
) -> tuple[Float[Array, "b s g v c"], State]:
    """Normalised latents (posterior means) of the next frames; state None begins a clip."""
    mean, _, state = vae.encode_chunk(to_unit(_split(video)), state)
    latents = (mean - statistics.mean) / statistics.deviation
    return _split(latents), jax.tree.map(_split, state)


def _split(x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w c"]:
    return constrain(x, "clips", None, "height", "width", None)


def decode_clips(
    vae: VAE,
    statistics: LatentStatistics,
    tokens: Float[Array, "b n p"],
    grid: Grid,
    *,
    patch: int,
    chunk: int,
    mesh: Mesh,
) -> UInt8[np.ndarray, "b t h w 3"]:
    """Clips of the tokens of `grid`, on the host; tokens behind those are padding.

    `chunk`: latent frames that are decoded at once. The networks are whole on every device of
    `mesh`; what it takes does not grow with the frames, but for the tokens.
    """
    pictures = picture_mesh(mesh, len(tokens), grid.height * patch, grid.width * patch)
    networks = whole(vae, statistics, pictures)
    frames, side = 1 + vae.config.temporal * (grid.frames - 1), vae.config.spatial * patch
    shape = (len(tokens), frames, grid.height * side, grid.width * side, 3)
    videos: UInt8[np.ndarray, "b t h w 3"] = np.empty(shape, np.uint8)
    start, state, done = 0, None, 0
    for length in chunk_lengths(grid.frames, chunk):
        part = Grid(length, grid.height, grid.width)
        with jax.set_mesh(mesh):
            latents = latents_at(tokens, start, part, patch)
        latents = jax.device_put(latents, clips_sharding(pictures))
        with jax.set_mesh(pictures):
            video, state = decode_chunk(*networks, latents, state)
        videos[:, done : done + video.shape[1]] = to_host(video)
        start, done = start + length, done + video.shape[1]
    return videos


@functools.partial(jax.jit, static_argnames=("part", "patch"))
def latents_at(
    tokens: Float[Array, "b n p"], start: int, part: Grid, patch: int
) -> Float[Array, "b s g v c"]:
    """Latents of a part of a clip, from its latent frame `start` on, whole on every device but for
    the rows."""
    first = start * part.height * part.width
    chosen = jax.lax.dynamic_slice_in_dim(tokens, first, part.tokens, 1)
    return constrain(unpatchify(chosen, part, patch), "rows", *(None,) * 4)


def encode_clips(
    vae: VAE,
    statistics: LatentStatistics,
    video: UInt8[np.ndarray, "b t h w 3"],
    *,
    patch: int,
    chunk: int,
    mesh: Mesh,
) -> Float[Array, "b n p"]:
    """Normalised latent tokens of clips on the host; `chunk`, in latent frames, and `mesh` as in
    `decode_clips`."""
    rows, frames, height, width = video.shape[:4]
    side, temporal = vae.config.spatial, vae.config.temporal
    pictures = picture_mesh(mesh, rows, height // side, width // side)
    networks = whole(vae, statistics, pictures)
    tokens, state = [], None
    for start, end in _spans(frames, temporal, chunk):
        pixels = jax.device_put(video[:, start:end], clips_sharding(pictures))
        with jax.set_mesh(pictures):
            latents, state = encode_chunk(*networks, pixels, state)
        tokens.append(jax.device_put(patchify(latents, patch), rows_sharding(mesh)))
    return jnp.concatenate(tokens, 1)


def _spans(frames: int, temporal: int, chunk: int) -> Iterator[tuple[int, int]]:
    """First and last but one frame of each chunk of a clip."""
    start, latent = 0, 0
    for length in chunk_lengths((frames - 1) // temporal + 1, chunk):
        latent += length
        end = 1 + temporal * (latent - 1)
        yield start, end
        start = end


def whole(vae: VAE, statistics: LatentStatistics, mesh: Mesh) -> tuple[VAE, LatentStatistics]:
    """The autoencoder, small beside what it computes, whole on every device.

    Of the mesh that its program is for: where arguments name another one of the same devices, XLA
    mixes the two and splits results in ways that neither has.
    """
    placed: tuple[VAE, LatentStatistics] = jax.device_put((vae, statistics), replicated(mesh))
    return placed
