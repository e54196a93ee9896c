"""The path's equations agree with each other, and noise is keyed by what it is about."""

import jax
import jax.numpy as jnp
import numpy as np

from sora_jax.diffusion.path import interpolate, token_noise, velocity_target
from sora_jax.sharding.rules import rows_sharding
from tests.tiny import eight_device_mesh

SHAPE = (3, 5, 2)


def test_the_ends_of_the_path_are_data_and_noise() -> None:
    data, noise = jax.random.normal(jax.random.key(0), (2, *SHAPE))
    np.testing.assert_array_equal(interpolate(data, noise, jnp.zeros((3, 5, 1))), data)
    np.testing.assert_array_equal(interpolate(data, noise, jnp.ones((3, 5, 1))), noise)


def test_velocity_is_the_derivative_and_leads_back_to_data() -> None:
    data, noise = jax.random.normal(jax.random.key(0), (2, *SHAPE))
    level = jax.random.uniform(jax.random.key(1), (3, 5, 1))
    velocity = velocity_target(data, noise)
    _, derivative = jax.jvp(
        lambda t: interpolate(data, noise, t), (level,), (jnp.ones_like(level),)
    )
    np.testing.assert_allclose(derivative, velocity, rtol=1e-6, atol=1e-6)
    found = interpolate(data, noise, level) - level * velocity  # equation (3)
    np.testing.assert_allclose(found, data, rtol=1e-5, atol=1e-6)


def test_noise_follows_the_example_not_the_row() -> None:
    examples = jnp.array([7, 3, 11, 2**31 - 1])
    order = jnp.array([2, 0, 3, 1])
    noise = token_noise(jax.random.key(0), examples, 6, 4)
    moved = token_noise(jax.random.key(0), examples[order], 6, 4)
    np.testing.assert_array_equal(moved, noise[order])
    np.testing.assert_array_equal(token_noise(jax.random.key(0), examples[1:2], 6, 4)[0], noise[1])


def test_noise_of_a_token_does_not_know_of_padding() -> None:
    examples = jnp.array([7, 3])
    short, long = (token_noise(jax.random.key(0), examples, n, 4) for n in (6, 11))
    np.testing.assert_array_equal(long[:, :6], short)


def test_examples_tokens_and_keys_differ() -> None:
    noise = np.asarray(token_noise(jax.random.key(0), jnp.arange(64), 32, 4))
    other = token_noise(jax.random.key(1), jnp.arange(64), 32, 4)
    flat = noise.reshape(-1)
    assert len(np.unique(flat)) > 0.999 * flat.size
    assert abs(np.corrcoef(flat, np.asarray(other).reshape(-1))[0, 1]) < 0.05
    assert abs(np.corrcoef(noise[:-1].reshape(-1), noise[1:].reshape(-1))[0, 1]) < 0.05
    np.testing.assert_allclose([flat.mean(), flat.std()], [0, 1], atol=0.03)


def test_noise_is_the_same_on_one_device_and_on_eight() -> None:
    examples, mesh = jnp.arange(8), eight_device_mesh()

    def noise(examples: jax.Array) -> jax.Array:
        return token_noise(jax.random.key(3), examples, 6, 4)

    sharding = rows_sharding(mesh)
    spread = jax.jit(noise, out_shardings=sharding)(jax.device_put(examples, sharding))
    assert len(spread.sharding.device_set) == 8
    np.testing.assert_array_equal(spread, jax.jit(noise)(examples))
