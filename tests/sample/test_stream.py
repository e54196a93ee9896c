"""A clip in chunks, its pictures split over devices, is the clip coded at once on one device."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

import sora_jax.nn.convolution
from sora_jax.models.latents import LatentStatistics, encode_tokens
from sora_jax.models.patches import Grid, unpatchify
from sora_jax.models.vae import VAE, Convolution, VAEConfig, to_uint8
from sora_jax.sample.stream import (
    chunk_lengths,
    decode_chunk,
    decode_clips,
    decode_scan,
    decode_values,
    encode_chunk,
    encode_clips,
    encode_scan,
    whole,
)
from sora_jax.sharding.mesh import MeshConfig, make_mesh, picture_mesh
from sora_jax.sharding.rules import clips_sharding
from tests.tiny import one_device_mesh, randomised

CONFIG = VAEConfig(channels=4, widths=(8, 4), folds=((2, 2), (2, 2)), shortcuts=True)
STATISTICS = LatentStatistics(jnp.full(4, 0.1), jnp.full(4, 1.3))
PATCH, SIDE = 2, 32


def networks_of(convolution: Convolution) -> tuple[VAE, LatentStatistics]:
    config = dataclasses.replace(CONFIG, convolution=convolution)
    return randomised(lambda rngs: VAE(config, rngs=rngs), deviation=0.1), STATISTICS


NETWORKS = networks_of("direct")
MESHES = {"one": one_device_mesh(), "eight": make_mesh(MeshConfig(fsdp=1, context=8))}
FEWER_CLIPS = make_mesh(MeshConfig(fsdp=2, context=4))
ENCODE_AT_ONCE: Any = jax.jit(encode_tokens, static_argnums=3)
DECODE_AT_ONCE: Any = jax.jit(lambda vae, latents: to_uint8(vae.decode(latents)))


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


def coded(
    code: Any, networks: Any, where: str, chunks: list[np.ndarray]
) -> tuple[list[np.ndarray], Any, str]:
    """Results and last state of a stream on one device or on eight, and the program of its second
    chunk."""
    mesh = picture_mesh(MESHES[where], 1, SIDE // 4, SIDE // 4)
    networks = whole(*networks, mesh)
    program = jax.jit(functools.partial(code, networks))
    state, results, text = None, [], ""
    with jax.set_mesh(mesh):
        for chunk in chunks:
            placed = jax.device_put(chunk, clips_sharding(mesh))
            if state is not None:
                text = program.lower(placed, state).compile().as_text()
            result, state = program(placed, state)
            results.append(np.asarray(result))
    return results, state, text


CODES: dict[str, Any] = {
    "decode": (decode_values, [latents(1), latents(2)]),
    "encode": (lambda networks, *chunk: encode_chunk(*networks, *chunk), [clip(1), clip(8)]),
}


@pytest.mark.parametrize("convolution", ["direct", "matmul"])
@pytest.mark.parametrize("what", CODES)
def test_a_picture_that_is_split_has_the_same_numbers(what: str, convolution: Convolution) -> None:
    code, chunks = CODES[what]
    networks = networks_of(convolution)
    expected, before, _ = coded(code, networks, "one", chunks)
    found, state, text = coded(code, networks, "eight", chunks)
    for one, other in zip(expected, found, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)
    for one, other in zip(*map(jax.tree.leaves, (before, state)), strict=True):
        split = other.sharding.shard_shape(other.shape)
        assert split[2] * split[3] * 8 == other.shape[2] * other.shape[3] or not other.size
        np.testing.assert_allclose(other, one, rtol=1e-5, atol=1e-5)
    only_edges_move(text, one_cell=convolution == "direct")


def only_edges_move(text: str, one_cell: bool) -> None:
    """Holds that devices exchange edges with their neighbours, and nothing else moves."""
    assert not re.search(r"(all-gather|all-reduce|all-to-all|reduce-scatter)(-start)?\(", text)
    sizes = re.findall(r"= f32\[(?:1,)?\d+,(\d+),(\d+),\d+\]\S* collective-permute\(", text)
    assert sizes
    if one_cell:
        assert all(1 in (int(height), int(width)) for height, width in sizes)


@pytest.mark.parametrize(("where", "frames"), [("one", 1), ("one", 6), ("eight", 7)])
def test_clips_in_one_scan_are_clips_at_once(where: str, frames: int) -> None:
    vae, statistics = NETWORKS
    mesh = picture_mesh(MESHES[where], 1, SIDE // 4, SIDE // 4)
    networks, sharding = whole(*NETWORKS, mesh), clips_sharding(mesh)
    with jax.set_mesh(mesh):
        video = jax.device_put(clip(4 * frames - 3), sharding)
        values = jax.device_put(latents(frames), sharding)
        encoded, decoded = encode_scan(*networks, video, 3), decode_scan(*networks, values, 3)
    expected = ENCODE_AT_ONCE(vae, statistics, clip(4 * frames - 3), 1)
    np.testing.assert_allclose(
        np.asarray(encoded).reshape(expected.shape), expected, rtol=1e-5, atol=1e-5
    )
    pixels = DECODE_AT_ONCE(vae, latents(frames) * statistics.deviation + statistics.mean)
    assert abs(np.asarray(decoded).astype(int) - np.asarray(pixels)).max() <= 1


@pytest.mark.parametrize("device", ["cpu", "another"])  # which convolves over frames at once
def test_a_scan_over_a_split_picture_moves_edges_alone(
    device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sora_jax.nn.convolution, "device_kind", lambda: device)
    jax.clear_caches()
    mesh = picture_mesh(MESHES["eight"], 1, SIDE // 4, SIDE // 4)
    networks, sharding = whole(*NETWORKS, mesh), clips_sharding(mesh)
    with jax.set_mesh(mesh):
        for code, array in ((decode_scan, latents(7)), (encode_scan, clip(25))):
            program = jax.jit(functools.partial(code, *networks, chunk=2))
            lowered = program.lower(jax.device_put(array, sharding))
            text = lowered.compile().as_text()
            only_edges_move(text, one_cell=True)
            over_frames = re.search(r"convolution\(.*dim_labels=b012f_", text)
            assert bool(over_frames) == (device != "cpu")
    jax.clear_caches()


@pytest.mark.parametrize("what", ["decode", "encode"])
def test_memory_of_a_scan_is_flat_in_duration(what: str) -> None:
    def memory(frames: int) -> int:
        """Bytes that a program needs beside what it is given and makes."""
        code, array = decode_scan, latents(frames)
        if what == "encode":
            code, array = encode_scan, clip(4 * frames - 3)
        program = jax.jit(functools.partial(code, *NETWORKS, chunk=5))
        return int(program.lower(array).compile().memory_analysis().temp_size_in_bytes)

    assert memory(240) <= 1.01 * memory(15)


def test_two_programs_code_any_duration() -> None:
    counts = []
    for frames in (15, 6, 240):
        video, grid = clip(4 * frames - 3), Grid(frames, SIDE // 8, SIDE // 8)
        how: Any = {"patch": PATCH, "chunk": 5, "mesh": MESHES["one"]}
        tokens = encode_clips(*NETWORKS, video, **how)
        assert decode_clips(*NETWORKS, tokens, grid, **how).shape == video.shape
        counts.append((encode_chunk._cache_size(), decode_chunk._cache_size()))
    assert counts[0] == counts[1] == counts[2]


@pytest.mark.parametrize("where", MESHES)
def test_the_beginning_of_a_clip_is_encoded_as_by_itself(where: str) -> None:
    how: Any = {"patch": PATCH, "chunk": 2, "mesh": MESHES[where]}
    video, tokens = clip(21), (SIDE // 8) ** 2
    expected = np.asarray(encode_clips(*NETWORKS, video, **how))
    for frames in (1, 2, 3, 5):
        found = encode_clips(*NETWORKS, video[:, : 4 * frames - 3], **how)
        begun = expected[:, : frames * tokens]
        np.testing.assert_allclose(found, begun, rtol=1e-5, atol=1e-5)


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
    expected = ENCODE_AT_ONCE(vae, statistics, video, PATCH)
    networks, how = whole(vae, statistics, mesh), {"patch": PATCH, "chunk": chunk, "mesh": mesh}
    tokens = encode_clips(*networks, video, **how)
    np.testing.assert_allclose(tokens, expected, rtol=1e-5, atol=1e-5)

    values = unpatchify(expected, grid, PATCH) * statistics.deviation + statistics.mean
    pixels = DECODE_AT_ONCE(vae, values)
    padded = jnp.pad(tokens, ((0, 0), (0, 5), (0, 0)), constant_values=7.0)
    found = decode_clips(*networks, padded, grid, **how)
    assert found.shape == video.shape
    assert abs(found.astype(int) - np.asarray(pixels)).max() <= 1
