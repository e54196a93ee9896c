"""Rotary positions: relative, continuous, shared out among time, y and x; and places."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sora_jax.nn.positions import PlaceEmbedding, axis_pairs, rotary_angles, rotate


@pytest.mark.parametrize(
    ("head_width", "pairs"), [(128, (22, 21, 21)), (32, (6, 5, 5)), (6, (1, 1, 1))]
)
def test_pairs_are_shared_among_the_axes(head_width: int, pairs: tuple[int, int, int]) -> None:
    assert axis_pairs(head_width) == pairs
    assert sum(pairs) == head_width // 2


def products(coordinates: jax.Array, theta: float = 100.0) -> jax.Array:
    query, key = jax.random.normal(jax.random.key(1), (2, 1, coordinates.shape[1], 1, 32))
    angles = rotary_angles(coordinates, 32, theta)
    return jnp.einsum("bqhk,bshk->bqs", rotate(query, angles), rotate(key, angles))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_products_depend_on_differences_of_coordinates_alone(axis: int) -> None:
    coordinates = jax.random.uniform(jax.random.key(0), (1, 7, 3), minval=-3, maxval=3)
    before = products(coordinates)
    np.testing.assert_allclose(
        products(coordinates.at[..., axis].add(2.75)), before, rtol=1e-4, atol=1e-4
    )
    moved = products(coordinates.at[0, 0, axis].add(0.5))
    assert np.abs(moved - before)[0, 0, 1:].min() > 1e-4


def test_angles_run_from_one_to_the_inverse_of_theta_a_unit() -> None:
    pairs = axis_pairs(128)
    angles = rotary_angles(jnp.array([[[2.0, 0.0, 0.0]]]), 128, 1000.0)[0, 0]
    assert angles[0] == pytest.approx(2.0)
    assert angles[pairs[0] - 1] == pytest.approx(2.0 / 1000.0, rel=1e-5)
    assert not angles[pairs[0] :].any()


def test_rotation_keeps_lengths_and_origin() -> None:
    x = jax.random.normal(jax.random.key(0), (2, 5, 3, 12))
    angles = rotary_angles(jnp.zeros((2, 5, 3)), 12, 10.0)
    np.testing.assert_array_equal(rotate(x, angles), x)
    turned = rotate(x, angles + 1.3)
    np.testing.assert_allclose(
        jnp.linalg.norm(turned, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5
    )


def test_a_place_is_told_by_y_and_x_each_on_its_own() -> None:
    embed = PlaceEmbedding(64, rngs=nnx.Rngs(0))
    places = jnp.array(
        [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 100.0], [0.0, 101.0]]
    )
    vectors = np.asarray(embed(places[None])[0])
    gaps = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    assert gaps[~np.eye(len(places), dtype=bool)].min() > 0.1 * np.linalg.norm(vectors[0])
    shuffled = embed(places[None, ::-1])[0]
    np.testing.assert_allclose(shuffled, vectors[::-1], rtol=1e-5, atol=1e-6)
