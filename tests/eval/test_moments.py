"""Moments of features that stream by over a mesh: those of one pass over all of them."""

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sora_jax.eval.moments import Moments, merged, moments_of, no_moments
from tests.tiny import eight_device_mesh

WIDTH = 12


def features(rows: int, mean: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(rows)
    return (rng.standard_normal((rows, WIDTH)) @ rng.standard_normal((WIDTH, WIDTH)) + mean).astype(
        np.float32
    )


def assert_moments_of(found: Moments, rows: np.ndarray, tolerance: float) -> None:
    exact = rows.astype(np.float64)
    assert found.count == len(rows)
    np.testing.assert_allclose(found.mean, exact.mean(0), rtol=tolerance, atol=tolerance)
    covariance = np.cov(exact.T)
    assert np.abs(found.covariance - covariance).max() < tolerance * np.abs(covariance).max()


def test_padded_batches_over_eight_devices_give_the_moments_of_one_pass() -> None:
    rows = features(52)
    sharding = NamedSharding(eight_device_mesh(), PartitionSpec(("replica", "fsdp", "context")))
    found = no_moments(WIDTH)
    for start in range(0, 52, 16):  # the last has 4 rows, on one of the devices or two
        part = rows[start : start + 16]
        padded = np.concatenate([part, np.repeat(part[-1:], 16 - len(part), 0)])
        real = np.arange(16) < len(part)
        batch = (jax.device_put(each, sharding) for each in (padded, real))
        found = merged(found, moments_of(*batch))
    assert_moments_of(found, rows, 1e-5)


def test_features_far_from_zero_lose_nothing() -> None:
    rows = features(2_000, mean=200.0)
    found = no_moments(WIDTH)
    for part in np.array_split(rows, 7):
        found = merged(found, moments_of(part, np.ones(len(part), bool)))
    assert_moments_of(found, rows, 1e-5)


def test_padding_may_be_anything() -> None:
    rows = features(8)
    padded = np.concatenate([rows, np.full((2, WIDTH), np.nan, np.float32)])
    assert_moments_of(moments_of(padded, np.arange(10) < 8), rows, 1e-5)


def test_what_is_merged_first_does_not_matter() -> None:
    one, two, three = (moments_of(features(n), np.ones(n, bool)) for n in (5, 9, 30))
    left, right = merged(merged(one, two), three), merged(one, merged(two, three))
    np.testing.assert_allclose(left.scatter, right.scatter, rtol=1e-9)
    assert merged(no_moments(WIDTH), no_moments(WIDTH)).count == 0


def test_a_single_row_has_no_covariance() -> None:
    with pytest.raises(ValueError, match="a covariance of 1 rows"):
        _ = moments_of(features(1), np.ones(1, bool)).covariance
