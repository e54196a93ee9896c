"""Permanence metrics: right of true clips, wrong of each violation, and 0 of frozen ones and
noise."""

from dataclasses import replace

import pytest

from sora_jax.eval.worlds.permanence import measure
from sora_jax.world import occluder
from sora_jax.world.occluder import Occluder
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


def another_shape_comes_out(truth: Occluder) -> Occluder:
    return replace(truth, shape="circle" if truth.shape == "cross" else "cross")


def another_colour_comes_out(truth: Occluder) -> Occluder:
    return replace(truth, colour="red" if truth.colour == "cyan" else "cyan")


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    spoilt = (truthful, coded, frozen, noise, shuffled, half_speed, jumping, vanishing)
    planted = {change.__name__: change for change in (another_shape_comes_out,)}
    return table(occluder, measure, spoilt, planted)


@pytest.mark.parametrize("row", ["truthful", "coded"])
def test_true_clips_are_right_in_everything(rows: dict[str, Row], row: str) -> None:
    for metric in rows[row].metrics():
        assert rows[row].asked(metric) == 24
        assert rows[row].coverage(metric) == 1
        assert rows[row].score(metric) >= 0.95


@pytest.mark.parametrize("row", ["frozen", "noise"])
def test_frozen_clips_and_noise_score_nothing(rows: dict[str, Row], row: str) -> None:
    for metric in rows[row].metrics():
        assert rows[row].score(metric) == 0


def test_a_frozen_frame_keeps_its_identity_for_nothing(rows: dict[str, Row]) -> None:
    assert rows["frozen"].value("identity") == 1
    assert rows["frozen"].score("identity") == 0


@pytest.mark.parametrize("row", ["half_speed", "vanishing", "jumping"])
def test_what_is_not_there_in_time_is_no_reemergence(rows: dict[str, Row], row: str) -> None:
    assert rows[row].score("reemergence") == 0
    assert rows[row].score("delay") == 0
    assert rows[row].score("identity") == 0


def test_a_jump_comes_out_late_or_early(rows: dict[str, Row]) -> None:
    assert rows["jumping"].value("delay") > 0.06
    assert rows["truthful"].value("delay") <= 0.01


def test_shuffled_frames_lose_place_time_and_cover(rows: dict[str, Row]) -> None:
    assert rows["shuffled"].score("reemergence") < 0.2
    assert rows["shuffled"].score("delay") < 0.2
    assert rows["shuffled"].score("concealed") < 0.2


def test_another_shape_is_not_the_same_thing(rows: dict[str, Row]) -> None:
    row = rows["another_shape_comes_out"]
    assert row.score("reemergence") == 1
    assert row.score("identity") == 0
    assert row.value("caption_facts") == 0.75


def test_another_colour_after_the_bar_is_not_the_same_thing() -> None:
    for seed in range(6):
        truth = occluder.sample(seed, 32, 16.0, "train", IN_DISTRIBUTION)
        video = occluder.render(truth, 64)
        video[16:] = occluder.render(another_colour_comes_out(truth), 64)[16:]
        measures = measure(video, truth)
        assert measures["reemergence"].value == 0
        assert measures["identity"].score == 0


@pytest.mark.parametrize("frames", [17, 32])
def test_small_and_short_clips_are_read_as_well(frames: int) -> None:
    row = table(occluder, measure, [truthful], size=32, frames=frames, fps=8.0)["truthful"]
    for metric in row.metrics():
        assert row.score(metric) >= 0.95
