"""Patches are undone exactly, and coordinates are seconds and patches from the centre."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sora_jax.models.latents import token_coordinates
from sora_jax.models.patches import (
    Grid,
    coordinates,
    frame_times,
    patchify,
    token_frames,
    unpatchify,
)

SIZES = st.integers(1, 5)


@settings(deadline=None, max_examples=10)
@given(SIZES, SIZES, SIZES, st.integers(1, 3), st.integers(1, 3))
def test_patches_are_undone(frames: int, height: int, width: int, patch: int, c: int) -> None:
    shape = (2, frames, height * patch, width * patch, c)
    latents = jnp.arange(np.prod(shape), dtype=jnp.float32).reshape(shape)
    grid = Grid(frames, height, width)
    tokens = patchify(latents, patch)
    assert tokens.shape == (2, grid.tokens, patch * patch * c)
    np.testing.assert_array_equal(unpatchify(tokens, grid, patch), latents)


def test_a_token_holds_the_pixels_of_its_coordinates() -> None:
    grid, patch = Grid(2, 3, 4), 2
    # Latents that hold their own place: a token's mean must be its coordinates.
    places = np.stack(np.meshgrid(np.arange(2), np.arange(6), np.arange(8), indexing="ij"), -1)
    tokens = patchify(jnp.asarray(places[None], jnp.float32), patch)[0]
    means = np.asarray(tokens).reshape(grid.tokens, patch * patch, 3).mean(1)
    found = coordinates(grid, 1)
    np.testing.assert_allclose(means[:, 0], found[:, 0])
    np.testing.assert_allclose(means[:, 0], token_frames(grid))
    np.testing.assert_allclose((means[:, 1:] - 0.5) / patch - [1.0, 1.5], found[:, 1:])


def test_latent_frames_stand_at_the_centre_of_what_they_see() -> None:
    np.testing.assert_array_equal(frame_times(jnp.arange(4), 4), [0, 2.5, 6.5, 10.5])
    np.testing.assert_array_equal(frame_times(jnp.arange(4), 1), [0, 1, 2, 3])
    np.testing.assert_array_equal(frame_times(jnp.arange(1), 4), [0])


@pytest.mark.parametrize("grid", [Grid(1, 1, 1), Grid(2, 3, 4), Grid(1, 7, 2)])
def test_pictures_are_centred(grid: Grid) -> None:
    found = coordinates(grid, 4)
    np.testing.assert_allclose(found[:, 1:].mean(0), 0, atol=1e-6)
    for axis, size in ((1, grid.height), (2, grid.width)):
        values = np.unique(found[:, axis])
        assert len(values) == size
        np.testing.assert_array_equal(np.diff(values), 1)


def test_the_same_instant_has_the_same_coordinate_at_any_frame_rate() -> None:
    # Frame rates r and 2r with one and two frames a latent: the k-th latents of both cover the
    # same seconds but for half a frame.
    slow = token_coordinates(Grid(5, 1, 1), 1, jnp.array([8.0]))[0, :, 0]
    fast = token_coordinates(Grid(9, 1, 1), 1, jnp.array([16.0]))[0, :, 0]
    np.testing.assert_allclose(slow, fast[::2], rtol=1e-6)
    np.testing.assert_allclose(slow, np.arange(5) / 8)


def test_rows_of_a_batch_have_frame_rates_of_their_own() -> None:
    both = jax.jit(lambda fps: token_coordinates(Grid(3, 2, 2), 4, fps))(jnp.array([8.0, 24.0]))
    np.testing.assert_allclose(both[0, :, 0], 3 * both[1, :, 0], rtol=1e-6)
    np.testing.assert_array_equal(both[0, :, 1:], both[1, :, 1:])
