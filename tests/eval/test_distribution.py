"""Distances between sets of features, beside closed forms and other implementations."""

import numpy as np
import pytest
import scipy.linalg

from sora_jax.eval.distribution import (
    extrapolated,
    frechet_distance,
    frechet_of_features,
    kernel_distance,
    null_distances,
    precision_recall,
)
from sora_jax.eval.moments import Moments, merged, moments_of, no_moments

ROWS, WIDTH = 400, 24


def gaussian(mean: np.ndarray, covariance: np.ndarray, count: int = 1_000) -> Moments:
    return Moments(count, mean, covariance * (count - 1))


def of(features: np.ndarray) -> Moments:
    return merged(no_moments(features.shape[1]), moments_of(features, np.ones(len(features), bool)))


def draw(rows: int = ROWS, seed: int = 0, mean: float = 0.0, width: int = WIDTH) -> np.ndarray:
    """Correlated features with a spectrum that falls as those of networks do."""
    rng = np.random.default_rng(1)
    mix = rng.standard_normal((width, width)) / np.arange(1, width + 1)
    values = np.random.default_rng(seed + 2).standard_normal((rows, width)) @ mix
    return (values + mean).astype(np.float32)


def test_diagonal_gaussians_have_the_distance_of_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.uniform(0.1, 4, (2, WIDTH))
    m, n = rng.standard_normal((2, WIDTH))
    closed = ((m - n) ** 2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()
    found = frechet_distance(gaussian(m, np.diag(a)), gaussian(n, np.diag(b)))
    assert found == pytest.approx(closed, rel=1e-6)


def test_a_set_is_no_distance_from_itself() -> None:
    x = draw()
    assert frechet_distance(of(x), of(x)) == pytest.approx(0, abs=1e-6)
    assert frechet_of_features(x, x) == pytest.approx(0, abs=1e-6)


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="a distance from 1 rows"):
        frechet_of_features(draw(1), draw())
    with pytest.raises(ValueError, match="fewer than four rows"):
        kernel_distance(draw(3), draw())


def test_a_rotation_of_both_changes_nothing() -> None:
    x, y = draw(), 1.3 * draw(seed=1) + 0.5
    rotation, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((WIDTH, WIDTH)))
    before = frechet_of_features(x, y)
    assert frechet_of_features(x @ rotation, y @ rotation) == pytest.approx(before, rel=1e-5)


@pytest.mark.parametrize(("rows", "others"), [(6, 6), (10, 300), (300, 300)])
def test_both_ways_agree_also_with_fewer_rows_than_features(rows: int, others: int) -> None:
    x, y = draw(rows), 1.3 * draw(others, seed=1) + 0.5
    found = frechet_of_features(x, y)
    assert np.isfinite(found)
    assert found > 0
    assert frechet_distance(of(x), of(y)) == pytest.approx(found, rel=1e-4)


def test_the_distance_is_that_of_scipys_square_root() -> None:
    x, y = draw(), 1.3 * draw(seed=1) + 0.5
    a, b = np.cov(x.astype(np.float64).T), np.cov(y.astype(np.float64).T)
    between = x.mean(0, dtype=np.float64) - y.mean(0, dtype=np.float64)
    root = scipy.linalg.sqrtm(a @ b)
    reference = between @ between + np.trace(a) + np.trace(b) - 2 * np.trace(root).real
    assert frechet_distance(of(x), of(y)) == pytest.approx(reference, rel=1e-4)
    assert frechet_of_features(x, y) == pytest.approx(reference, rel=1e-4)


def test_features_far_from_zero_keep_their_distance_in_float32() -> None:
    x, y = draw(), 1.3 * draw(seed=1)
    exact = frechet_of_features(x.astype(np.float64), y.astype(np.float64))
    far = frechet_distance(of(x + np.float32(200)), of(y + np.float32(200)))
    assert far == pytest.approx(exact, rel=1e-3)


def test_the_limit_of_many_rows_is_near_the_truth_where_few_rows_are_not() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 2_000, 64))
    assert frechet_of_features(x, y) > 1.0  # both sets are of one distribution
    limit, error = extrapolated(x, y)
    assert abs(limit) < 3 * error
    assert 0 < error < 0.15
    moved, _ = extrapolated(x, y + 0.5)
    assert moved == pytest.approx(64 * 0.25, abs=0.3)


def test_half_sets_of_one_set_are_the_null() -> None:
    x = draw()
    null = null_distances(x, splits=20)
    assert len(null) == 20
    same = frechet_of_features(draw(200, seed=5), draw(200, seed=6))
    assert null.min() / 2 < same < null.max() * 2
    assert frechet_of_features(x[:200], 1.5 * x[200:]) > null.max()


def test_kernel_distance_is_unbiased_and_sees_a_shift() -> None:
    x, y = draw(1_000), draw(1_000, seed=1)
    same, spread = kernel_distance(x, y, subsets=40)
    moved, _ = kernel_distance(x, y + np.float32(1.0), subsets=40)
    assert abs(same) < 3 * spread
    assert moved > 10 * spread

    def kernel(p: np.ndarray, q: np.ndarray) -> np.ndarray:
        return (p.astype(np.float64) @ q.T / WIDTH + 1) ** 3

    own = sum((kernel(z, z).sum() - np.trace(kernel(z, z))) / (1_000 * 999) for z in (x, y))
    assert same == pytest.approx(own - 2 * kernel(x, y).mean(), abs=3 * spread / np.sqrt(40))


def test_precision_falls_with_strangers_and_recall_with_missing_modes() -> None:
    rng = np.random.default_rng(0)
    centres = 20 * np.eye(4, 8)
    real = np.concatenate([c + rng.standard_normal((100, 8)) for c in centres])
    same = np.concatenate([c + rng.standard_normal((100, 8)) for c in centres])
    assert min(precision_recall(real, same)) > 0.8
    precision, recall = precision_recall(real, same[:200])  # two of four modes
    assert precision > 0.8
    assert 0.4 < recall < 0.55
    strangers = np.concatenate([same[:200], -20 + rng.standard_normal((200, 8))])
    precision, _ = precision_recall(real, strangers)
    assert 0.4 < precision < 0.55
    assert precision_recall(real, real) == (1, 1)
