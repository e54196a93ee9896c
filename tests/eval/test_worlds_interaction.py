"""Interaction metrics: right of true clips, wrong of each violation, and 0 of frozen ones and
noise."""

from dataclasses import replace

import numpy as np
import pytest

from sora_jax.eval.worlds.interaction import measure, measure_pair
from sora_jax.world import painter
from sora_jax.world.painter import Painter
from sora_jax.world.splits import IN_DISTRIBUTION
from tests.reference_table import Row, table
from tests.violations import (
    coded,
    frozen,
    half_speed,
    jumping,
    noise,
    shuffled,
    truthful,
    vanishing,
)


def fading_marks(truth: Painter) -> Painter:
    return replace(truth, fade=8)


def wrong_actions(truth: Painter) -> Painter:
    return painter.counterfactual(truth, 5, "train")


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    spoilt = (truthful, coded, frozen, noise, shuffled, half_speed, jumping, vanishing)
    planted = {change.__name__: change for change in (fading_marks, wrong_actions)}
    return table(painter, measure, spoilt, planted)


@pytest.mark.parametrize("row", ["truthful", "coded"])
def test_true_clips_are_right_in_everything(rows: dict[str, Row], row: str) -> None:
    for metric in rows[row].metrics():
        assert rows[row].asked(metric) == 24
        assert rows[row].coverage(metric) == 1
        assert rows[row].score(metric) >= 0.98


@pytest.mark.parametrize("row", ["frozen", "noise"])
def test_frozen_clips_and_noise_score_nothing(rows: dict[str, Row], row: str) -> None:
    for metric in rows[row].metrics():
        assert rows[row].score(metric) == 0


def test_marks_that_fade_are_missed(rows: dict[str, Row]) -> None:
    assert rows["fading_marks"].value("mark_recall") < 0.5
    assert rows["fading_marks"].value("mark_precision") == 1
    assert rows["fading_marks"].score("mark_recall") < 0.5
    assert rows["fading_marks"].score("action_accuracy") == 1


def test_wrong_actions_are_no_better_than_chance(rows: dict[str, Row]) -> None:
    assert rows["wrong_actions"].value("action_accuracy") < 0.4
    for metric in ("action_accuracy", "caption_facts", "path_error"):
        assert rows["wrong_actions"].score(metric) < 0.25
    assert rows["wrong_actions"].value("mark_recall") < 0.6
    assert rows["wrong_actions"].value("mark_precision") < 0.6


@pytest.mark.parametrize("row", ["shuffled", "half_speed"])
def test_what_comes_at_another_time_is_not_done(rows: dict[str, Row], row: str) -> None:
    for metric in ("action_accuracy", "caption_facts", "path_error"):
        assert rows[row].score(metric) < 0.25


def test_half_speed_leaves_half_of_the_marks(rows: dict[str, Row]) -> None:
    assert rows["half_speed"].value("mark_recall") < 0.75
    assert rows["half_speed"].score("mark_recall") < 0.5


def test_a_vanished_square_is_lost_and_its_marks_too(rows: dict[str, Row]) -> None:
    assert rows["vanishing"].value("square_kept") == 0.5
    assert rows["vanishing"].score("square_kept") < 0.5
    assert rows["vanishing"].score("mark_recall") == 0
    assert rows["vanishing"].score("action_accuracy") < 0.5


def test_a_jump_loses_the_path(rows: dict[str, Row]) -> None:
    assert rows["jumping"].value("path_error") > 0.3
    assert rows["jumping"].score("mark_precision") < 0.5


def test_pairs_show_the_difference_that_was_commanded_or_not() -> None:
    for seed in range(24):
        truth = painter.sample(seed, 32, 16.0, "train", IN_DISTRIBUTION)
        other = painter.counterfactual(truth, seed, "train")
        clip, other_clip = painter.render(truth, 64), painter.render(other, 64)
        rng = np.random.default_rng(seed)
        pair = measure_pair(coded(clip, rng), coded(other_clip, rng), truth, other)
        assert pair["counterfactual_error"].score > 0.95
        for same in (clip, frozen(clip, rng), noise(clip, rng)):
            assert measure_pair(same, same, truth, other)["counterfactual_error"].score == 0
        swapped = measure_pair(other_clip, clip, truth, other)["counterfactual_error"]
        assert swapped.value == pytest.approx(2, abs=0.01)


@pytest.mark.parametrize("frames", [17, 32])
def test_small_and_short_clips_are_read_as_well(frames: int) -> None:
    row = table(painter, measure, [truthful], size=32, frames=frames, fps=8.0)["truthful"]
    for metric in row.metrics():
        assert row.score(metric) >= 0.98
