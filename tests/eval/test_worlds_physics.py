"""Physics metrics: right of true clips, wrong of each violation, and 0 of frozen ones and noise."""

import math
from dataclasses import replace

import numpy as np
import pytest

from sora_jax.eval.worlds.measure import Measures
from sora_jax.eval.worlds.physics import measure
from sora_jax.world import bounce
from sora_jax.world.bounce import Bounce
from sora_jax.world.canvas import blank, draw, pixels
from sora_jax.world.scene import GRAVITY
from sora_jax.world.splits import IN_DISTRIBUTION
from tests.reference_table import Row, table
from tests.violations import coded, drifting, frozen, half_speed, jumping, noise, shuffled, truthful


def half_gravity(truth: Bounce) -> Bounce:
    return replace(truth, scene=replace(truth.scene, gravity=GRAVITY / 2))


@pytest.fixture(scope="module")
def rows() -> dict[str, Row]:
    spoilt = (truthful, coded, frozen, noise, shuffled, half_speed, jumping, drifting)
    return table(bounce, measure, spoilt, {half_gravity.__name__: half_gravity})


@pytest.mark.parametrize("row", ["truthful", "coded"])
def test_true_clips_are_right_in_everything(rows: dict[str, Row], row: str) -> None:
    assert rows[row].value("gravity") == pytest.approx(GRAVITY, rel=0.01)
    assert rows[row].value("gravity_spread") < 0.05
    assert rows[row].value("energy_variation") < 0.005
    assert rows[row].value("restitution") == pytest.approx(1, abs=0.01)
    assert rows[row].value("momentum_error") < 0.02
    assert rows[row].value("velocity_error") < 0.015
    for metric in rows[row].metrics():
        assert rows[row].coverage(metric) == 1
        assert rows[row].score(metric) >= 0.95


def test_the_metrics_are_asked_of_most_clips(rows: dict[str, Row]) -> None:
    asked = {metric: rows["truthful"].asked(metric) for metric in rows["truthful"].metrics()}
    everywhere = {"moved", "count_kept", "velocity_error", "caption_facts", "gravity"}
    assert {metric for metric, count in asked.items() if count == 24} >= everywhere
    assert asked["energy_variation"] >= 20
    assert asked["restitution"] >= 15
    assert asked["momentum_error"] >= 6


@pytest.mark.parametrize("row", ["frozen", "noise"])
def test_frozen_clips_and_noise_score_nothing(rows: dict[str, Row], row: str) -> None:
    for metric in rows[row].metrics():
        assert rows[row].score(metric) == 0


def test_a_frozen_frame_keeps_count_and_energy_for_nothing(rows: dict[str, Row]) -> None:
    assert rows["frozen"].value("count_kept") == 1
    assert rows["frozen"].value("energy_variation") < 1e-12


def test_half_the_gravity_is_measured_as_such(rows: dict[str, Row]) -> None:
    row = rows["half_gravity"]
    assert row.value("gravity") == pytest.approx(GRAVITY / 2, rel=0.02)
    assert row.score("gravity") < 0.55
    assert row.value("energy_variation") > 0.05
    assert row.value("velocity_error") > 20 * rows["truthful"].value("velocity_error")
    assert row.value("restitution") == pytest.approx(1, abs=0.01)


def test_half_the_speed_is_no_law_of_motion(rows: dict[str, Row]) -> None:
    row = rows["half_speed"]
    assert row.value("gravity") < 0.6 * GRAVITY
    assert row.value("gravity_spread") > 0.5 * GRAVITY
    for metric in ("gravity", "gravity_spread", "energy_variation", "momentum_error"):
        assert row.score(metric) < 0.3


def test_shuffled_frames_fly_nowhere(rows: dict[str, Row]) -> None:
    row = rows["shuffled"]
    assert row.coverage("gravity") < 0.5
    for metric in ("gravity", "gravity_spread", "energy_variation", "velocity_error"):
        assert row.score(metric) < 0.1


def test_what_floats_keeps_its_energy_for_nothing(rows: dict[str, Row]) -> None:
    row = rows["drifting"]
    assert row.value("gravity") == pytest.approx(0, abs=0.01)
    assert row.value("energy_variation") < 0.01
    for metric in ("gravity", "gravity_spread", "energy_variation", "velocity_error"):
        assert row.score(metric) < 0.05


def test_a_jump_is_an_error_of_velocity(rows: dict[str, Row]) -> None:
    truth, row = rows["truthful"], rows["jumping"]
    assert row.value("velocity_error") > 10 * truth.value("velocity_error")
    assert row.coverage("energy_variation") < 1


@pytest.mark.parametrize("fps", [8.0, 16.0])
def test_small_and_short_clips_are_read_as_well(fps: float) -> None:
    row = table(bounce, measure, [truthful], size=32, frames=17, fps=fps)["truthful"]
    for metric in row.metrics():
        assert row.score(metric) >= 0.95


def drawn(truth: Bounce, places: np.ndarray) -> Measures:
    """The measures of the discs of a truth drawn at other places [t, 2, 2]."""
    canvas = blank(truth.frames, 64)
    for index, body in enumerate(truth.scene.bodies):
        draw(canvas, "circle", body.colour, places[:, index], body.radius)
    return measure(pixels(canvas), truth)


def test_a_vanished_disc_is_missed() -> None:
    truth = bounce.sample(0, 32, 16.0, "train", IN_DISTRIBUTION)
    places = bounce.states(truth).positions.copy()
    places[16:, 0] = 5.0
    assert drawn(truth, places)["count_kept"].value == 0.5


@pytest.mark.parametrize("kept", [1.0, 0.7, 0.4])
def test_restitution_at_the_floor_is_measured(kept: float) -> None:
    """Discs fall straight down and come back up with a part of their speed."""
    truth = bounce.sample(0, 32, 16.0, "train", IN_DISTRIBUTION)
    first = replace(truth.scene.bodies[0], position=(0.2, 0.3), velocity=(0.25, 0.0), radius=0.07)
    second = replace(truth.scene.bodies[1], position=(0.7, 0.2), velocity=(0.25, 0.0), radius=0.07)
    scene = replace(truth.scene, bodies=(first, second))
    truth = replace(truth, scene=scene, frames=24)
    time = np.arange(24) / 16
    places = np.zeros((24, 2, 2))
    for index, body in enumerate(scene.bodies):
        drop = 1 - body.radius - body.position[1]
        hit = math.sqrt(2 * drop / GRAVITY)
        after = np.maximum(time - hit, 0)
        rise = kept * GRAVITY * hit * after - 0.5 * GRAVITY * after**2
        fallen = np.where(time < hit, 0.5 * GRAVITY * time**2, drop - rise)
        places[:, index] = np.stack([np.full(24, body.position[0]), body.position[1] + fallen], 1)
    assert drawn(truth, places)["restitution"].value == pytest.approx(kept, abs=0.02)


def test_discs_that_pass_through_each_other_have_negative_restitution() -> None:
    checked = 0
    for seed in range(24):
        truth = bounce.sample(seed, 16, 16.0, "train", IN_DISTRIBUTION)
        true = measure(bounce.render(truth, 64), truth)
        if "momentum_error" in true:
            time = (np.arange(16) / 16)[:, None, None]
            starts = np.array([body.position for body in truth.scene.bodies])
            speeds = np.array([body.velocity for body in truth.scene.bodies])
            fall = 0.5 * GRAVITY * time**2 * np.array([0.0, 1.0])
            ghosts = drawn(truth, starts + speeds * time + fall)
            assert ghosts["restitution"].score < 0.1
            checked += 1
    assert checked >= 4
