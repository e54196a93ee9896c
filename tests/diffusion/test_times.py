"""Training covers the noise levels evenly by quantile, and longer clips stand nearer to noise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.config import ConfigError
from sora_jax.diffusion.times import TimesConfig, sampling_times, shifted, training_times

CONFIG = TimesConfig(mean=-0.3, deviation=1.2, base_tokens=64)
ROWS = 32
DRAW = jax.jit(training_times, static_argnums=(0, 4))


def quantiles(times: np.ndarray, tokens: int) -> np.ndarray:
    """Undoes equations (2) and (1): what is left must be uniform."""
    a = np.sqrt(tokens / CONFIG.base_tokens)
    unshifted = np.asarray(times, np.float64) / (a - (a - 1) * np.asarray(times, np.float64))
    normal = (np.log(unshifted / (1 - unshifted)) - CONFIG.mean) / CONFIG.deviation
    return np.asarray(jax.scipy.stats.norm.cdf(normal))


@pytest.mark.parametrize("tokens", [16, 64, 1024])
@pytest.mark.parametrize("step", [0, 1])
def test_every_stratum_is_hit_once(tokens: int, step: int) -> None:
    examples = jnp.arange(ROWS) + ROWS * step
    key = jax.random.fold_in(jax.random.key(0), step)
    times = DRAW(CONFIG, key, examples, jnp.full(ROWS, tokens), ROWS)
    found = np.sort(quantiles(times, tokens) * ROWS)
    np.testing.assert_array_equal(np.floor(found + 1e-3 * (found % 1 < 0.5)), np.arange(ROWS))


def test_quantiles_are_uniform_within_their_strata_and_in_no_order() -> None:
    keys = jax.random.split(jax.random.key(0), 200)
    tokens, examples = jnp.full(ROWS, 64), jnp.arange(ROWS)
    times = jax.jit(jax.vmap(lambda key: training_times(CONFIG, key, examples, tokens, ROWS)))(keys)
    found = quantiles(np.asarray(times), 64)
    np.testing.assert_allclose(found.mean(0), 0.5, atol=0.1)  # no row prefers a level
    np.testing.assert_allclose((found * ROWS % 1).mean(), 0.5, atol=0.02)
    assert abs(np.corrcoef(found[:, :-1].reshape(-1), found[:, 1:].reshape(-1))[0, 1]) < 0.05


def test_a_part_of_a_batch_draws_what_it_does_in_the_whole() -> None:
    examples, tokens, key = jnp.arange(ROWS), jnp.full(ROWS, 64), jax.random.key(0)
    whole = DRAW(CONFIG, key, examples, tokens, ROWS)
    np.testing.assert_array_equal(DRAW(CONFIG, key, examples[8:16], tokens[:8], ROWS), whole[8:16])


def test_each_row_is_shifted_by_its_own_tokens() -> None:
    tokens = jnp.where(jnp.arange(ROWS) % 2, 16, 1024)
    times = DRAW(CONFIG, jax.random.key(0), jnp.arange(ROWS), tokens, ROWS)
    for count in (16, 1024):
        alone = DRAW(CONFIG, jax.random.key(0), jnp.arange(ROWS), jnp.full(ROWS, count), ROWS)
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
