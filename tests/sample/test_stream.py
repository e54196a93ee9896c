"""A clip in chunks, its pictures split over devices, is the clip coded at once on one device."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from sora_jax.models.latents import LatentStatistics, encode_tokens
from sora_jax.models.patches import Grid, unpatchify
from sora_jax.models.vae import VAE, VAEConfig, to_uint8
from sora_jax.sample.stream import (
    chunk_lengths,
    decode_chunk,
    decode_clips,
    encode_chunk,
    encode_clips,
    whole,
)
from sora_jax.sharding.mesh import MeshConfig, make_mesh, picture_mesh
from sora_jax.sharding.rules import clips_sharding
from tests.tiny import one_device_mesh, randomised

CONFIG = VAEConfig(channels=4, widths=(8, 6), folds=((2, 2), (2, 2)), blocks=2)
STATISTICS = LatentStatistics(jnp.full(4, 0.1), jnp.full(4, 1.3))
PATCH, SIDE = 2, 32
NETWORKS = (randomised(lambda rngs: VAE(CONFIG, rngs=rngs), deviation=0.1), STATISTICS)
MESHES = {"one": one_device_mesh(), "eight": make_mesh(MeshConfig(fsdp=1, context=8))}
FEWER_CLIPS = make_mesh(MeshConfig(fsdp=2, context=4))


@pytest.mark.parametrize(
    ("frames", "most", "lengths"),
    [(1, 4, [1]), (4, 4, [1, 3]), (5, 4, [1, 4]), (361, 16, [1] + 23 * [16]), (7, 1, 7 * [1])],
)
def test_chunks_are_equal_but_for_the_first(frames: int, most: int, lengths: list[int]) -> None:
    assert chunk_lengths(frames, most) == lengths


def clip(frames: int, rows: int = 1) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (rows, frames, SIDE, SIDE, 3), np.uint8)


def latents(frames: int) -> np.ndarray:
    shape = (1, frames, SIDE // 4, SIDE // 4, 4)
    return np.random.default_rng(1).normal(size=shape).astype(np.float32)


def coded(code: Any, where: str, chunks: list[np.ndarray]) -> tuple[list[np.ndarray], Any, str]:
    """Results and last state of a stream on one device or on eight, and the program of its second
    chunk."""
    mesh = picture_mesh(MESHES[where], 1, SIDE // 4, SIDE // 4)
    networks = whole(*NETWORKS, mesh)
    state, results, text = None, [], ""
    with jax.set_mesh(mesh):
        for chunk in chunks:
            placed = jax.device_put(chunk, clips_sharding(mesh))
            if state is not None:
                program = jax.jit(functools.partial(code, *networks))
                text = program.lower(placed, state).compile().as_text()
            result, state = code(*networks, placed, state)
            results.append(np.asarray(result, np.float32))
    return results, state, text


@pytest.mark.parametrize("kind", ["decode", "encode"])
def test_a_picture_that_is_split_has_the_same_numbers(kind: str) -> None:
    if kind == "decode":
        code, chunks = decode_chunk, [latents(1), latents(2)]
    else:
        code, chunks = encode_chunk, [clip(1), clip(8)]
    expected, before, _ = coded(code, "one", chunks)
    found, state, text = coded(code, "eight", chunks)
    for one, other in zip(expected, found, strict=True):
        # Pixels are whole numbers: one may stand on the border between two.
        np.testing.assert_allclose(other, one, atol=1 if kind == "decode" else 1e-5)
        assert np.mean(one != other) < 1e-3 or kind == "encode"
    for one, other in zip(*map(jax.tree.leaves, (before, state)), strict=True):
        split = other.sharding.shard_shape(other.shape)
        assert split[2] * split[3] * 8 == other.shape[2] * other.shape[3] or not other.size
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)
    # Edges go to the neighbours, and nothing else moves.
    assert "collective-permute" in text
    assert "all-gather" not in text
    assert "all-reduce" not in text


@pytest.mark.parametrize("where", MESHES)
@pytest.mark.parametrize("chunk", [1, 2, 4])
def test_clips_in_chunks_are_clips_at_once(where: str, chunk: int) -> None:
    are_as_at_once(clip(13), MESHES[where], chunk)


def test_pictures_of_four_clips_are_split_over_eight_devices() -> None:
    assert picture_mesh(FEWER_CLIPS, 4, SIDE // 4, SIDE // 4).devices.shape == (4, 1, 2, 1)
    are_as_at_once(clip(5, rows=4), FEWER_CLIPS, chunk=1)


def are_as_at_once(video: np.ndarray, mesh: Mesh, chunk: int) -> None:
    """Holds that clips coded in chunks have the latents, and the pixels, of clips coded at once."""
    vae, statistics = NETWORKS
    grid = Grid((video.shape[1] - 1) // 4 + 1, SIDE // 8, SIDE // 8)
    expected = encode_tokens(vae, statistics, jnp.asarray(video), PATCH)
    networks, how = whole(vae, statistics, mesh), {"patch": PATCH, "chunk": chunk, "mesh": mesh}
    tokens = encode_clips(*networks, video, **how)
    np.testing.assert_allclose(tokens, expected, rtol=1e-5, atol=1e-5)

    values = unpatchify(expected, grid, PATCH) * statistics.deviation + statistics.mean
    pixels = to_uint8(vae.decode(values))
    padded = jnp.pad(tokens, ((0, 0), (0, 5), (0, 0)), constant_values=7.0)
    found = decode_clips(*networks, padded, grid, **how)
    assert found.shape == video.shape
    assert abs(found.astype(int) - np.asarray(pixels)).max() <= 1
