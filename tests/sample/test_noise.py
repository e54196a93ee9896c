"""Noise averaged down: of unit variance, independent, and the same on any mesh."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.diffusion.path import token_noise
from sora_jax.models.patches import Grid, patchify, unpatchify
from sora_jax.sample.noise import clip_noise
from sora_jax.sharding.rules import rows_sharding
from tests.tiny import eight_device_mesh

KEY, PATCH, CHANNELS, SEEDS = jax.random.key(0), 2, 4, 8192
LARGE = Grid(5, 4, 6)


def noise_of(small: Grid, large: Grid | None, seeds: int, beyond: int = 0) -> np.ndarray:
    shape = (small.tokens + beyond, CHANNELS)
    return np.asarray(clip_noise(KEY, jnp.arange(seeds), shape, small, large, PATCH))


def test_whole_cells_are_summed_and_divided_by_the_root_of_their_number() -> None:
    """In time the first latent frame stays alone."""
    small = Grid(3, 2, 3)
    large = unpatchify(token_noise(KEY, jnp.arange(3), LARGE.tokens, CHANNELS), LARGE, PATCH)
    blocks = np.asarray(large).reshape(3, 5, 4, 2, 6, 2, 1).sum((3, 5)) / 2
    later = blocks[:, 1:].reshape(3, 2, 2, 4, 6, 1).sum(2) / np.sqrt(2)
    expected = patchify(np.concatenate([blocks[:, :1], later], 1), PATCH)
    np.testing.assert_allclose(noise_of(small, LARGE, 3), expected, atol=1e-5)


@pytest.mark.parametrize(
    "small", [Grid(3, 2, 3), Grid(4, 3, 5), Grid(1, 1, 4), Grid(5, 4, 5)], ids=str
)
def test_cells_have_unit_variance_and_know_nothing_of_each_other(small: Grid) -> None:
    """At whole ratios and at others."""
    numbers = noise_of(small, LARGE, SEEDS).reshape(SEEDS, -1)
    covariance = numbers.T @ numbers / SEEDS
    # Its entries are off by a normal deviate / sqrt(seeds), those of the diagonal by sqrt(2) of it.
    np.testing.assert_allclose(covariance, np.eye(len(covariance)), atol=6.5 / np.sqrt(SEEDS))
    assert abs(numbers.mean(0)).max() < 5.5 / np.sqrt(SEEDS)
    np.testing.assert_allclose(np.mean(numbers**4), 3.0, atol=0.05)


def test_a_cut_cell_is_alike_to_those_that_it_is_cut_into() -> None:
    """By the root of the shares: cells of 4 / 3 hold a whole one and a third of another."""
    small = Grid(1, 1, 3)
    numbers = unpatchify(jnp.asarray(noise_of(small, Grid(1, 1, 4), SEEDS)), small, PATCH)
    large = token_noise(KEY, jnp.arange(SEEDS), 4, CHANNELS)
    cells = np.asarray(unpatchify(large, Grid(1, 1, 4), PATCH))[:, 0, 0, :, 0]
    found = np.asarray(numbers)[:, 0, 0, :, 0].T @ cells / SEEDS
    expected = np.kron(np.eye(2), [[1, 1 / 3, 0, 0], [0, 2 / 3, 2 / 3, 0], [0, 0, 1 / 3, 1]])
    np.testing.assert_allclose(found, expected * np.sqrt(3 / 4), atol=5 / np.sqrt(SEEDS))


def test_noise_of_an_equal_clip_is_its_own_bit_for_bit_and_so_is_what_is_behind_it() -> None:
    own = token_noise(KEY, jnp.arange(3), LARGE.tokens + 7, CHANNELS)
    np.testing.assert_array_equal(noise_of(LARGE, LARGE, 3, beyond=7), own)
    np.testing.assert_array_equal(noise_of(LARGE, None, 3, beyond=7), own)
    small = Grid(3, 2, 3)
    found = noise_of(small, LARGE, 3, beyond=7)
    np.testing.assert_array_equal(found[:, small.tokens :], own[:, small.tokens : small.tokens + 7])


@pytest.mark.parametrize("small", [Grid(3, 2, 3), Grid(4, 3, 5)], ids=str)
def test_noise_is_the_same_on_one_device_and_on_eight(small: Grid) -> None:
    mesh, seeds = eight_device_mesh(), jnp.arange(8)

    def noise(seeds: jax.Array) -> jax.Array:
        return clip_noise(KEY, seeds, (small.tokens, CHANNELS), small, LARGE, PATCH)

    sharding = rows_sharding(mesh)
    spread = jax.jit(noise, out_shardings=sharding)(jax.device_put(seeds, sharding))
    assert len(spread.sharding.device_set) == 8
    np.testing.assert_allclose(spread, jax.jit(noise)(seeds), atol=1e-6)
