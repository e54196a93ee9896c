"""Rigidity metrics: right of true clips, wrong of each violation, and 0 of frozen ones and
noise."""

from dataclasses import replace

import numpy as np
import pytest

from sora_jax.eval.worlds.rigidity import common_rate, measure, rank_residual
from sora_jax.world import cube
from sora_jax.world.cube import Cube
from sora_jax.world.splits import IN_DISTRIBUTION
from tests.reference_table import Row, table
from tests.violations import coded, drifting, frozen, half_speed, jumping, noise, shuffled, truthful


def wobbling(truth: Cube) -> Cube:
    return replace(truth, wobble=0.23)


def half_the_turn(truth: Cube) -> Cube:
    return replace(truth, turn=truth.turn / 2)


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    spoilt = (truthful, coded, frozen, noise, shuffled, half_speed, jumping, drifting)
    planted = {change.__name__: change for change in (wobbling, half_the_turn)}
    return table(cube, measure, spoilt, planted)


@pytest.mark.parametrize("row", ["truthful", "coded"])
def test_true_clips_are_right_in_everything(rows: dict[str, Row], row: str) -> None:
    assert rows[row].value("rank3_residual") < 0.05
    assert rows[row].value("rate_misfit") < 0.05
    assert rows[row].value("depth") > 0.5
    for metric in rows[row].metrics():
        assert rows[row].asked(metric) == 24
        assert rows[row].coverage(metric) == 1
        assert rows[row].score(metric) >= 0.95


@pytest.mark.parametrize("row", ["frozen", "noise"])
def test_frozen_clips_and_noise_score_nothing(rows: dict[str, Row], row: str) -> None:
    for metric in rows[row].metrics():
        assert rows[row].score(metric) < 1e-9


def test_a_frozen_frame_is_rigid_for_nothing(rows: dict[str, Row]) -> None:
    assert rows["frozen"].value("rank3_residual") < 1e-6
    assert rows["frozen"].value("depth") < 1e-6


def test_a_wobble_is_not_rigid(rows: dict[str, Row]) -> None:
    assert rows["wobbling"].value("rank3_residual") > 0.1
    assert rows["wobbling"].value("rate_misfit") > 0.2
    assert rows["wobbling"].score("rank3_residual") < 0.35
    assert rows["wobbling"].score("rate_misfit") < 0.35


def test_rank_is_blind_to_order_and_the_rate_is_not(rows: dict[str, Row]) -> None:
    shuffle, truth = rows["shuffled"], rows["truthful"]
    assert shuffle.value("rank3_residual") == pytest.approx(truth.value("rank3_residual"))
    assert shuffle.value("rate_misfit") > 0.8
    assert shuffle.score("rate_misfit") == 0


@pytest.mark.parametrize("row", ["half_the_turn", "half_speed"])
def test_half_the_turn_is_half_the_rate(rows: dict[str, Row], row: str) -> None:
    half = rows["truthful"].value("spin_rate") / 2
    assert rows[row].value("spin_rate") == pytest.approx(half, rel=0.25)
    assert rows[row].score("spin_rate") < 0.4


def test_a_jump_is_no_steady_rate(rows: dict[str, Row]) -> None:
    assert rows["jumping"].value("rate_misfit") > 3 * rows["truthful"].value("rate_misfit")
    assert rows["jumping"].score("rate_misfit") < 0.7


def test_a_picture_that_moves_as_a_whole_turns_nothing(rows: dict[str, Row]) -> None:
    for metric in rows["drifting"].metrics():
        assert rows["drifting"].score(metric) < 0.05


def test_without_perspective_nothing_is_left_over() -> None:
    truth = cube.sample(0, 32, 16.0, "train", IN_DISTRIBUTION)
    flat = cube.corners(truth)[..., :2] + 0.5
    every = np.ones(flat.shape[:2], bool)
    assert rank_residual(flat, every)[0] < 1e-6
    rate, misfit = common_rate(flat, every)
    assert rate == pytest.approx(truth.turn, abs=1e-9)
    assert misfit < 1e-3


@pytest.mark.parametrize("frames", [17, 32])
def test_small_and_short_clips_are_read_as_well(frames: int) -> None:
    row = table(cube, measure, [truthful], size=32, frames=frames, fps=8.0)["truthful"]
    for metric in row.metrics():
        assert row.score(metric) >= 0.95
