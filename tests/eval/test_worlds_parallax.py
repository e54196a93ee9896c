"""Parallax metrics: right of true clips, wrong of each violation, and 0 of frozen ones and
noise."""

from dataclasses import replace

import pytest

from sora_jax.eval.worlds.parallax import measure
from sora_jax.world import pan
from sora_jax.world.pan import Pan
from tests.reference_table import Row, table
from tests.violations import coded, frozen, half_speed, jumping, noise, shuffled, truthful


def flat(truth: Pan) -> Pan:
    """All dots at one depth."""
    return replace(truth, dots=tuple(replace(dot, nearness=1.0) for dot in truth.dots))


def loose_dot(truth: Pan) -> Pan:
    """A far dot that goes its own way."""
    first, *others = truth.dots
    return replace(truth, dots=(replace(first, nearness=1.5), *others))


def half_the_way(truth: Pan) -> Pan:
    return replace(truth, travel=truth.travel / 2)


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    spoilt = (truthful, coded, frozen, noise, shuffled, half_speed, jumping)
    planted = {change.__name__: change for change in (flat, loose_dot, half_the_way)}
    return table(pan, measure, spoilt, planted)


@pytest.mark.parametrize("row", ["truthful", "coded"])
def test_true_clips_are_right_in_everything(rows: dict[str, Row], row: str) -> None:
    assert rows[row].value("camera_speed") == pytest.approx(1, abs=0.005)
    assert rows[row].value("parallax") == pytest.approx(2, abs=0.01)
    assert rows[row].value("loop_error") < 0.005
    for metric in rows[row].metrics():
        assert rows[row].asked(metric) == 24
        assert rows[row].coverage(metric) == 1
        assert rows[row].score(metric) >= 0.97


@pytest.mark.parametrize("row", ["frozen", "noise"])
def test_frozen_clips_and_noise_score_nothing(rows: dict[str, Row], row: str) -> None:
    for metric in rows[row].metrics():
        assert rows[row].score(metric) == 0


def test_a_frozen_frame_closes_its_loop_for_nothing(rows: dict[str, Row]) -> None:
    assert rows["frozen"].value("loop_error") == 0
    assert rows["frozen"].score("loop_error") == 0


def test_a_flat_picture_has_no_parallax(rows: dict[str, Row]) -> None:
    assert rows["flat"].value("parallax") == pytest.approx(1, abs=0.01)
    assert rows["flat"].score("parallax") < 0.02
    assert rows["flat"].score("camera_speed") > 0.99


def test_a_slower_camera_is_one(rows: dict[str, Row]) -> None:
    assert rows["half_the_way"].value("camera_speed") == pytest.approx(0.5, abs=0.01)
    assert rows["half_the_way"].score("parallax") == pytest.approx(0.5, abs=0.02)


def test_a_loose_dot_is_not_rigid(rows: dict[str, Row]) -> None:
    assert rows["loose_dot"].value("rigidity_misfit") > 0.05
    assert rows["truthful"].value("rigidity_misfit") < 0.005
    assert rows["loose_dot"].score("rigidity_misfit") < 0.75


@pytest.mark.parametrize("row", ["shuffled", "half_speed", "jumping"])
def test_what_does_not_come_back_closes_no_loop(rows: dict[str, Row], row: str) -> None:
    assert rows[row].value("loop_error") > 0.25
    assert rows[row].score("loop_error") < 0.05
    assert rows[row].score("rigidity_misfit") < 0.05


def test_shuffled_frames_are_no_pan(rows: dict[str, Row]) -> None:
    assert rows["shuffled"].score("camera_speed") < 0.2
    assert rows["shuffled"].score("parallax") < 0.2


@pytest.mark.parametrize("frames", [17, 32])
def test_small_and_short_clips_are_read_as_well(frames: int) -> None:
    row = table(pan, measure, [truthful], size=32, frames=frames, fps=8.0)["truthful"]
    for metric in row.metrics():
        assert row.score(metric) >= 0.97
