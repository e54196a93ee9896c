"""Measures of latents against closed forms: of Gaussians, of mixed channels, of known decoders."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from sora_jax.eval.latent_space import (
    NOISE,
    STEPS,
    channel_metrics,
    decoder,
    encoded,
    neighbour_correlation,
    path,
    with_noise,
)
from sora_jax.eval.reconstruction import reconstruct
from sora_jax.models.latents import LatentStatistics
from sora_jax.models.vae import to_unit
from tests.tiny_models import tiny_networks


def gaussian(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def test_of_independent_gaussians_all_channels_are_used() -> None:
    found = channel_metrics(gaussian(4, 5, 40, 40, 6))
    assert found["mean_most"] < 0.02
    assert found["deviation_least"] == pytest.approx(1, abs=0.02)
    assert found["deviation_most"] == pytest.approx(1, abs=0.02)
    assert found["kurtosis_most"] < 0.1
    assert found["correlation_most"] < 0.03
    assert found["channels_used"] == pytest.approx(6, abs=0.02)


def test_channels_are_as_scipy_and_numpy_have_them() -> None:
    mixing = gaussian(5, 5, seed=1)
    values = (gaussian(3000, 5) ** 3) @ mixing + gaussian(5, seed=2)
    found = channel_metrics(values.reshape(3, 10, 10, 10, 5))
    apart = np.corrcoef(values.T) - np.eye(5)
    assert found["correlation_most"] == pytest.approx(np.abs(apart).max())
    assert found["kurtosis_most"] == pytest.approx(np.abs(stats.kurtosis(values)).max())
    assert found["mean_most"] == pytest.approx(np.abs(values.mean(0)).max())
    assert found["deviation_most"] == pytest.approx(values.std(0).max())
    covariance = np.cov(values.T)
    used = np.trace(covariance) ** 2 / np.trace(covariance @ covariance)
    assert found["channels_used"] == pytest.approx(used)


def test_channels_that_say_the_same_count_as_one() -> None:
    one = gaussian(2, 3, 10, 10, 1)
    found = channel_metrics(one * np.array([1.0, -2.0, 0.5]))
    assert found["channels_used"] == pytest.approx(1)
    assert found["correlation_most"] == pytest.approx(1)
    assert found["deviation_least"] == pytest.approx(0.5 * one.std())


def test_a_dead_channel_is_no_error() -> None:
    values = gaussian(2, 3, 10, 10, 3)
    values[..., 1] = 0
    found = channel_metrics(values)
    assert found["deviation_least"] < 1e-9
    assert all(np.isfinite(list(found.values())))


def test_neighbours_of_an_average_have_its_correlation() -> None:
    """Means of n cells that follow each other share n - 1 of them with the next mean."""
    noise = gaussian(2, 3, 203, 60, 4)
    smooth = sum(noise[:, :, n : n + 200] for n in range(4)) / 4
    assert neighbour_correlation(smooth, 2) == pytest.approx(3 / 4, abs=0.01)
    assert neighbour_correlation(smooth, 3) == pytest.approx(0, abs=0.01)
    assert neighbour_correlation(smooth - 100, 2) == pytest.approx(3 / 4, abs=0.01)
    alternating = np.resize([1.0, -1.0], (1, 1, 1, 30, 1))
    assert neighbour_correlation(alternating, 3) == pytest.approx(-1)


def test_a_straight_and_even_decoder_has_ratio_one() -> None:
    first, last = gaussian(2, 3, 3, 4), gaussian(2, 3, 3, 4, seed=1)
    matrix = gaussian(4, 7, seed=2)
    assert path(lambda z: z @ matrix, first, last) == pytest.approx((1, 1))
    assert path(lambda z: z, first, first) == (1, 1)


def test_a_decoder_that_goes_round_or_jumps_is_told() -> None:
    """Half a circle in chords, over its diameter; and a step at once."""
    first, last = np.zeros((1, 1, 1, 1)), np.ones((1, 1, 1, 1))
    ratio, longest = path(
        lambda z: np.stack([np.cos(np.pi * z), np.sin(np.pi * z)], -1), first, last
    )
    assert ratio == pytest.approx(STEPS * np.sin(np.pi / 2 / STEPS))
    assert longest == pytest.approx(1)
    ratio, longest = path(lambda z: (z > 0.4).astype(float), first, last)
    assert (ratio, longest) == (1, STEPS)


def test_noise_is_that_of_its_seed_and_size() -> None:
    latents = np.zeros((5, 30, 30, 16), np.float32)
    noisy = with_noise(latents, 3)
    assert noisy.dtype == np.float32
    assert noisy.std() == pytest.approx(NOISE, rel=0.01)
    assert np.array_equal(noisy, with_noise(latents, 3))
    assert not np.array_equal(noisy, with_noise(latents, 4))


def test_latents_are_normalised_and_decoded_back() -> None:
    _, vae = tiny_networks()
    statistics = LatentStatistics(jnp.array([0.1, -0.2, 0.0, 0.3]), jnp.array([0.5, 1.0, 2.0, 0.1]))
    clips = np.random.default_rng(0).integers(0, 256, (2, 5, 8, 12, 3), np.uint8)
    latents, deviations = encoded(vae, statistics, list(clips))
    mean, log_variance = vae.encode(to_unit(jnp.asarray(clips)))
    expected = (mean - statistics.mean) / statistics.deviation
    np.testing.assert_allclose(latents, expected, atol=1e-4)
    expected = jnp.exp(log_variance / 2) / statistics.deviation
    np.testing.assert_allclose(deviations, expected, rtol=1e-4)
    decoded = decoder(vae, statistics)(latents).astype(int)
    assert np.abs(decoded - np.stack(reconstruct(vae, list(clips)))).max() <= 1
