"""Pixels <-> latent tokens, a few latent frames at a time: any duration in the same memory.

Nothing of the autoencoder looks ahead or pools over time, so what it hands on is all that the next
frames need, and the numbers are those of the whole clip at once. Two programs code a clip of any
duration: one for its first latent frame, which begins the state, and one for every chunk of so many
after it. The last chunk is filled up, which changes nothing before the filling, and cut.

Where clips are fewer than devices their pictures are split as well: convolutions then exchange the
cells at their edges.
"""

import functools
from typing import Any

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

Networks = tuple[VAE, LatentStatistics]


def chunk_lengths(latent_frames: int, most: int) -> list[int]:
    """Latent frames of each chunk of a clip: one, then always `most`, or all that are left of a
    clip that has fewer. The last chunk may reach over the end."""
    length = min(most, latent_frames - 1)
    return [1] + [length] * (-(-(latent_frames - 1) // length) if length else 0)


def decode_values(
    networks: Networks, latents: Float[Array, "b s g v c"], state: State
) -> tuple[Float[Array, "b t h w 3"], State]:
    """Pixels of the next normalised latents as numbers around [-1, 1]; state None begins a clip."""
    vae, statistics = networks
    latents = _split(latents) * statistics.deviation + statistics.mean
    video, state = vae.decode_chunk(latents, state)
    return _split(video), jax.tree.map(_split, state)


def _decode(
    networks: Networks, latents: Float[Array, "b s g v c"], state: State
) -> tuple[UInt8[Array, "b t h w 3"], State]:
    video, state = decode_values(networks, latents, state)
    return to_uint8(video), state


def _encode(
    networks: Networks, video: UInt8[Array, "b t h w 3"], state: State
) -> tuple[Float[Array, "b s g v c"], State]:
    vae, statistics = networks
    mean, _, state = vae.encode_chunk(to_unit(_split(video)), state)
    latents = (mean - statistics.mean) / statistics.deviation
    return _split(latents), jax.tree.map(_split, state)


@functools.partial(jax.jit, donate_argnames="state")
def decode_chunk(
    vae: VAE, statistics: LatentStatistics, latents: Float[Array, "b s g v c"], state: State
) -> tuple[UInt8[Array, "b t h w 3"], State]:
    """Pixels of the next normalised latents; state None begins a clip."""
    return _decode((vae, statistics), latents, state)


@functools.partial(jax.jit, donate_argnames="state")
def encode_chunk(
    vae: VAE, statistics: LatentStatistics, video: UInt8[Array, "b t h w 3"], state: State
) -> tuple[Float[Array, "b s g v c"], State]:
    """Normalised latents (posterior means) of the next frames; state None begins a clip."""
    return _encode((vae, statistics), video, state)


@functools.partial(jax.jit, static_argnames="chunk")
def decode_scan(
    vae: VAE, statistics: LatentStatistics, latents: Float[Array, "b s g v c"], chunk: int
) -> UInt8[Array, "b t h w 3"]:
    """Pixels of whole clips that lie on the devices, `chunk` latent frames at a time in one scan,
    whose carry is the state: beside latents and pixels its memory does not grow with the frames."""
    count, rest = divmod(latents.shape[1] - 1, chunk)
    code = functools.partial(_decode, (vae, statistics))
    return _scanned(code, latents, 1 + rest, chunk, count, vae.config.temporal * chunk)


@functools.partial(jax.jit, static_argnames="chunk")
def encode_scan(
    vae: VAE, statistics: LatentStatistics, video: UInt8[Array, "b t h w 3"], chunk: int
) -> Float[Array, "b s g v c"]:
    """Normalised latents of whole clips that lie on the devices; `chunk`, in latent frames, as in
    `decode_scan`."""
    step = vae.config.temporal * chunk
    count, rest = divmod(video.shape[1] - 1, step)
    code = functools.partial(_encode, (vae, statistics))
    return _scanned(code, video, 1 + rest, step, count, chunk)


def _scanned(code: Any, x: Array, first: int, step: int, count: int, made_each: int) -> Array:
    """What `code` makes of the `first` frames of x and, scanned, of `count` times `step` after
    them, of which it makes `made_each`."""
    made, state = code(x[:, :first], None)
    if not count:  # a scan would still compile its body
        return made
    begun = made.shape[1]
    # Results go to their places in one array. Stacked by the scan, with chunks in front, all of
    # them would be moved again at its end.
    whole = jnp.pad(made, ((0, 0), (0, count * made_each), *((0, 0),) * 3))

    def next_chunk(carry: tuple[State, Array], number: Array) -> tuple[tuple[State, Array], None]:
        state, whole = carry
        part = jax.lax.dynamic_slice_in_dim(x, first + number * step, step, 1)
        made, state = code(part, state)
        place = begun + number * made_each
        whole = jax.lax.dynamic_update_slice_in_dim(whole, made, place, 1)
        return (state, _split(whole)), None

    (_, whole), _ = jax.lax.scan(next_chunk, (state, _split(whole)), jnp.arange(count))
    return whole


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
        left = frames - done
        videos[:, done : done + video.shape[1]] = to_host(video)[:, :left]
        start, done = start + length, done + video.shape[1]
    return videos


@functools.partial(jax.jit, static_argnames=("part", "patch"))
def latents_at(
    tokens: Float[Array, "b n p"], start: int, part: Grid, patch: int
) -> Float[Array, "b s g v c"]:
    """Latents of a part of a clip, from its latent frame `start` on, whole on every device but for
    the rows. What a part has behind the tokens is any of them."""
    first = start * part.height * part.width
    chosen = jax.lax.dynamic_slice_in_dim(tokens, first, part.tokens, 1)
    over = jnp.maximum(first + part.tokens - tokens.shape[1], 0)  # which the slice stands too early
    chosen = jnp.roll(chosen, -over, 1)
    latents: Any = unpatchify(chosen, part, patch)
    return constrain(latents, "rows", *(None,) * 4)


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
    tokens, state, start = [], None, 0
    latent = (frames - 1) // temporal + 1
    for length in chunk_lengths(latent, chunk):
        end = start + temporal * length if start else 1
        pixels = filled(video[:, start:end], end - start)
        with jax.set_mesh(pictures):
            placed = jax.device_put(pixels, clips_sharding(pictures))
            latents, state = encode_chunk(*networks, placed, state)
        kept = (min(end, frames) - start - 1) // temporal + 1
        tokens.append(jax.device_put(patchify(latents[:, :kept], patch), rows_sharding(mesh)))
        start = end
    return jnp.concatenate(tokens, 1)


def filled(video: np.ndarray, frames: int) -> np.ndarray:
    """[b t ...] with its last frame repeated until there are so many."""
    missing = frames - video.shape[1]
    return np.concatenate([video, video[:, -1:].repeat(missing, 1)], 1) if missing else video


def whole(vae: VAE, statistics: LatentStatistics, mesh: Mesh) -> Networks:
    """The autoencoder, small beside what it computes, whole on every device.

    Of the mesh that its program is for: where arguments name another one of the same devices, XLA
    mixes the two and splits results in ways that neither has.
    """
    placed: Networks = jax.device_put((vae, statistics), replicated(mesh))
    return placed
