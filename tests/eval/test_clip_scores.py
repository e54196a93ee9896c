"""Scores over clips: closed forms, what does not count, and pairs."""

import numpy as np
import pytest

from sora_jax.errors import ConfigError
from sora_jax.eval.clip_scores import Score, difference, joined, of_values, prefixed, summary

RNG = np.random.default_rng(0)


def test_a_score_is_the_share_of_all_questions_whatever_clip_they_were_asked_of() -> None:
    score = Score(np.array([1.0, 0.5, np.nan]), np.array([1.0, 4.0, 0.0]))
    assert score.mean() == pytest.approx(3 / 5)
    assert summary({"a": score})["a"] == pytest.approx(3 / 5)
    assert summary({"none": Score(np.ones(3), np.zeros(3))}) == {}
    assert np.isnan(Score(np.ones(3), np.zeros(3)).mean())


def test_the_error_of_plain_values_is_that_of_a_mean() -> None:
    values = RNG.normal(3, 2, 50)
    score = of_values(values)
    assert score.standard_error() == pytest.approx(values.std(ddof=1) / np.sqrt(50))
    assert of_values([2.0]).standard_error() == 0


def test_intervals_agree_with_the_error_of_a_weighted_mean() -> None:
    """A normal mean lies within 1.96 errors in 95 of 100 cases."""
    score = Score(RNG.normal(3, 2, 400), RNG.integers(0, 5, 400).astype(float))
    low, high = score.interval()
    assert low < score.mean() < high
    assert (high - low) / 2 == pytest.approx(1.96 * score.standard_error(), rel=0.1)
    assert score.interval() == score.interval()


def test_intervals_hold_the_truth_in_95_of_100_cases() -> None:
    held = 0
    for _ in range(200):
        low, high = of_values(RNG.normal(1, 1, 40)).interval()
        held += low < 1 < high
    assert 0.89 < held / 200 < 0.99


def test_pairs_cancel_what_clips_differ_by() -> None:
    clips, change = RNG.normal(0, 5, 60), RNG.normal(0.1, 0.05, 60)
    found = difference(of_values(clips + change), of_values(clips))
    assert found.mean == pytest.approx(change.mean())
    assert found.standard_error == pytest.approx(change.std(ddof=1) / np.sqrt(60))
    assert found.low < change.mean() < found.high
    assert found.unpaired_error > 10 * found.standard_error


def test_what_cannot_be_compared_is_said() -> None:
    with pytest.raises(ConfigError, match="of different clips"):
        difference(of_values([1, 2]), of_values([1, 2, 3]))
    with pytest.raises(ConfigError, match="of different clips"):
        difference(of_values([1, 2]), Score(np.ones(2), np.array([1.0, 2.0])))
    with pytest.raises(ConfigError, match="fewer than two clips"):
        difference(of_values([1]), of_values([1]))


def test_parts_join_and_what_one_lacks_counts_for_nothing_there() -> None:
    whole = joined([prefixed("a/", {"x": of_values([1, 2])}), {"b": of_values([5])}])
    assert whole["a/x"].mean() == 1.5
    assert whole["b"].mean() == 5
    np.testing.assert_array_equal(whole["a/x"].weights, [1, 1, 0])
    np.testing.assert_array_equal(whole["b"].weights, [0, 0, 1])
