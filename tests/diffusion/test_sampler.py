"""The real sampler on data whose velocity is known in closed form: linear-Gaussian clips.

For data ~ N(mu, S) the path x_t = (1 - t) x_0 + t eps has the velocity

    v(x, t) = (t I - (1 - t) S) M (x - (1 - t) mu) - mu,   M = ((1 - t)^2 S + t^2 I)^-1

the conditional mean of eps - x_0 given x_t = x.
"""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.diffusion.conditioning import NoiseField, noise_field
from sora_jax.diffusion.path import token_noise
from sora_jax.diffusion.sampler import Method, integrate
from sora_jax.diffusion.times import TimesConfig, sampling_times
from tests.tiny import places, prefix_given

TOKENS, CHANNELS, ROWS = 3, 2, 4096
SIZE = TOKENS * CHANNELS
MEAN = np.linspace(-1.5, 1.0, SIZE)
MIXING = np.random.default_rng(0).standard_normal((SIZE, SIZE)) / 2 + 0.3 * np.eye(SIZE)
COVARIANCE = MIXING @ MIXING.T
TIMES = TimesConfig(base_tokens=2)
FRAMES = jnp.broadcast_to(jnp.arange(TOKENS), (ROWS, TOKENS))


def field_at(time: jax.Array, given: int = 0) -> NoiseField:
    pattern = prefix_given(
        jnp.full((ROWS, 1), given), jnp.full((ROWS, 1), time), jnp.zeros((ROWS, 1))
    )
    return noise_field(places(FRAMES, jnp.ones_like(FRAMES)), *pattern)


def velocity(x: jax.Array, field: NoiseField) -> jax.Array:
    t = field.levels[0, 0, 0]
    mean, covariance = jnp.asarray(MEAN, jnp.float32), jnp.asarray(COVARIANCE, jnp.float32)
    identity = jnp.eye(SIZE)
    precision = jnp.linalg.inv((1 - t) ** 2 * covariance + t**2 * identity)
    slope = (t * identity - (1 - t) * covariance) @ precision
    flat = x.reshape(-1, SIZE) - (1 - t) * mean
    return (flat @ slope.T - mean).reshape(x.shape)


@jax.jit(static_argnums=(1, 2))
def sample(noise: jax.Array, steps: int, method: Method) -> jax.Array:
    return integrate(velocity, field_at, noise, sampling_times(TIMES, steps, TOKENS), method)


def moments(noise: jax.Array, steps: int, method: Method) -> tuple[np.ndarray, np.ndarray]:
    flat = np.asarray(sample(noise, steps, method), np.float64).reshape(ROWS, SIZE)
    return flat.mean(0), np.cov(flat.T, bias=True)


def standardised_noise() -> jax.Array:
    """Noise of mean 0 and covariance 1 exactly: the flow is linear, so moments come out exact."""
    noise = token_noise(jax.random.key(0), jnp.arange(ROWS), TOKENS, CHANNELS)
    flat = np.asarray(noise, np.float64).reshape(ROWS, SIZE)
    flat -= flat.mean(0)
    flat = flat @ np.linalg.inv(np.linalg.cholesky(np.cov(flat.T, bias=True))).T
    return jnp.asarray(flat.reshape(noise.shape), jnp.float32)


@pytest.mark.parametrize(
    ("method", "steps", "tolerance"), [("euler", 400, 0.02), ("heun", 100, 2e-3)]
)
def test_samples_have_the_mean_and_covariance_of_the_data(
    method: Method, steps: int, tolerance: float
) -> None:
    mean, covariance = moments(standardised_noise(), steps, method)
    np.testing.assert_allclose(mean, MEAN, atol=tolerance)
    np.testing.assert_allclose(covariance, COVARIANCE, atol=tolerance)


@pytest.mark.parametrize(("method", "order"), [("euler", 1), ("heun", 2)])
def test_error_falls_with_the_order_of_the_method(method: Method, order: int) -> None:
    noise = standardised_noise()
    errors = [
        np.abs(moments(noise, steps, method)[1] - COVARIANCE).max() for steps in (25, 50, 100)
    ]
    for coarse, fine in itertools.pairwise(errors):
        assert np.log2(coarse / fine) == pytest.approx(order, abs=0.25), errors


@pytest.mark.parametrize("method", ["euler", "heun"])
def test_given_tokens_do_not_move_by_a_bit(method: Method) -> None:
    noise = token_noise(jax.random.key(0), jnp.arange(ROWS), TOKENS, CHANNELS)
    out = integrate(
        velocity, lambda t: field_at(t, 2), noise, sampling_times(TIMES, 5, TOKENS), method
    )
    np.testing.assert_array_equal(out[:, :2], noise[:, :2])
    assert np.abs(out[:, 2:] - noise[:, 2:]).min() > 0
