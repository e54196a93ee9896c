"""Training covers the noise levels evenly by quantile, and longer clips stand nearer to noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.config import ConfigError
from sora_jax.diffusion.times import TimesConfig, sampling_times, shifted, training_times

CONFIG = TimesConfig(mean=-0.3, deviation=1.2, base_tokens=64)
ROWS = 32
DRAW = jax.jit(training_times, static_argnums=0)


def quantiles(times: np.ndarray, tokens: int) -> np.ndarray:
    """Undoes equations (2) and (1): what is left must be uniform."""
    a = np.sqrt(tokens / CONFIG.base_tokens)
    unshifted = np.asarray(times, np.float64) / (a - (a - 1) * np.asarray(times, np.float64))
    normal = (np.log(unshifted / (1 - unshifted)) - CONFIG.mean) / CONFIG.deviation
    return np.asarray(jax.scipy.stats.norm.cdf(normal))


@pytest.mark.parametrize("tokens", [16, 64, 1024])
@pytest.mark.parametrize("first", [0, 1_000_003, 2**31 - 400])
@pytest.mark.parametrize("rows", [2, 7, 32, 300])
def test_examples_in_a_row_leave_no_noise_level_out(tokens: int, first: int, rows: int) -> None:
    """Also the part of a batch that a device sees, and far into a run."""
    examples = jnp.asarray(np.arange(first, first + rows), jnp.int32)
    times = DRAW(CONFIG, jax.random.key(first), examples, jnp.full(rows, tokens))
    found = np.sort(quantiles(times, tokens))
    gaps = np.diff(np.append(found, found[0] + 1))
    assert 0.3 / rows < gaps.min()
    assert gaps.max() < 2 / rows


def drawn(count: int) -> np.ndarray:
    """Quantiles of the same examples at so many steps."""
    keys = jax.random.split(jax.random.key(0), count)
    tokens, examples = jnp.full(ROWS, 64), jnp.arange(ROWS)
    times = jax.jit(jax.vmap(lambda key: training_times(CONFIG, key, examples, tokens)))(keys)
    return quantiles(np.asarray(times), 64)


def test_no_row_prefers_a_noise_level() -> None:
    found = drawn(2000)
    np.testing.assert_allclose(found.mean(0), 0.5, atol=0.03)
    np.testing.assert_allclose((found < 0.1).mean(0), 0.1, atol=0.03)


def test_the_mean_over_a_batch_is_steadier_than_of_independent_draws() -> None:
    """Of what a loss may look like over the noise levels: steep at one end, and with a bump."""
    levels = drawn(500)
    alone = np.random.default_rng(0).uniform(size=levels.shape)
    for curve in (lambda u: u**4, lambda u: np.exp(-50 * (u - 0.7) ** 2)):
        assert curve(levels).mean(1).std() < 0.4 * curve(alone).mean(1).std()


def test_each_row_is_shifted_by_its_own_tokens() -> None:
    tokens = jnp.where(jnp.arange(ROWS) % 2, 16, 1024)
    times = DRAW(CONFIG, jax.random.key(0), jnp.arange(ROWS), tokens)
    for count in (16, 1024):
        alone = DRAW(CONFIG, jax.random.key(0), jnp.arange(ROWS), jnp.full(ROWS, count))
        rows = np.asarray(tokens) == count
        np.testing.assert_allclose(np.asarray(times)[rows], np.asarray(alone)[rows], rtol=1e-6)


def test_the_shift_is_the_root_rule_and_keeps_order_and_ends() -> None:
    assert CONFIG.shift(64) == 1.0
    assert CONFIG.shift(256) == pytest.approx(2.0)
    times = jnp.linspace(0, 1, 11)
    np.testing.assert_array_equal(shifted(times, jnp.array(1.0)), times)
    moved = np.asarray(shifted(times, CONFIG.shift(256)))
    assert (moved[0], moved[-1]) == (0, 1)
    assert (np.diff(moved) > 0).all()
    assert (moved[1:-1] > times[1:-1]).all()
    assert moved[5] == pytest.approx(2 * 0.5 / 1.5)


@pytest.mark.parametrize("tokens", [16, 64, 1024])
def test_sampling_runs_from_noise_to_data_with_the_shift_of_training(tokens: int) -> None:
    times = np.asarray(sampling_times(CONFIG, 8, tokens))
    assert (len(times), times[0], times[-1]) == (9, 1.0, 0.0)
    assert (np.diff(times) < 0).all()
    expected = shifted(jnp.linspace(1, 0, 9), CONFIG.shift(tokens))
    np.testing.assert_allclose(times, expected, rtol=1e-6)


def test_parameters_must_be_positive() -> None:
    with pytest.raises(ConfigError, match="deviation=0.0 and base_tokens=256 must be positive"):
        TimesConfig(deviation=0.0)
