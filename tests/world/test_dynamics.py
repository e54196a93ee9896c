"""The motion of scenes is exact: closed forms, conservation, reversal, any time at random."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from sora_jax.world.dynamics import simulate
from sora_jax.world.scene import GRAVITY, Body, Scene, WorldConfig, make_body, sample_scene

CROWDED = WorldConfig(min_objects=4, max_objects=4, motions=("gravity",), free_time=0.1)


def scene_of(*bodies: Body, gravity: float = 0.0, box: tuple[float, float] = (1.0, 1.0)) -> Scene:
    return Scene(bodies, gravity, box, 0, 0.0, (0.0, 0.0), 0)


def disc(radius: float, position: tuple[float, float], velocity: tuple[float, float]) -> Body:
    return Body("circle", "red", "small", radius, radius**2, position, velocity)


def energy(scene: Scene, times: np.ndarray) -> np.ndarray:
    states = simulate(scene, times)
    masses = np.array([body.mass for body in scene.bodies])
    kinetic = 0.5 * (states.velocities**2).sum(axis=-1)
    return (masses * (kinetic - scene.gravity * states.positions[..., 1])).sum(axis=-1)


def test_a_wall_returns_a_body_at_its_edge() -> None:
    states = simulate(scene_of(disc(0.2, (0.5, 0.4), (0.5, 0.0))), np.array([0.5, 1.0]))
    # It touches at x = 0.8 after 0.6 s, and flies back for 0.4 s.
    np.testing.assert_allclose(states.positions[:, 0], [[0.75, 0.4], [0.6, 0.4]], atol=1e-12)
    np.testing.assert_allclose(states.velocities[:, 0], [[0.5, 0.0], [-0.5, 0.0]], atol=1e-12)


def test_a_dropped_body_falls_and_rises_to_where_it_was() -> None:
    scene = scene_of(disc(0.1, (0.5, 0.3), (0.0, 0.0)), gravity=GRAVITY)
    fall = math.sqrt(2 * 0.6 / GRAVITY)
    states = simulate(scene, np.array([0.4, fall, 1.5 * fall, 2 * fall, 10 * fall]))
    expected = [0.3 + 0.5 * GRAVITY * 0.4**2, 0.9, 0.9 - 0.75 * 0.6, 0.3, 0.3]
    np.testing.assert_allclose(states.positions[:, 0, 1], expected, atol=1e-12)


def test_a_thrown_body_meets_the_ceiling_under_gravity() -> None:
    scene = scene_of(disc(0.1, (0.5, 0.4), (0.0, -1.0)), gravity=GRAVITY)
    touch = (1.0 - math.sqrt(1 - 2 * GRAVITY * 0.3)) / GRAVITY
    states = simulate(scene, np.array([touch, 2 * touch]))
    np.testing.assert_allclose(states.positions[:, 0, 1], [0.1, 0.4], atol=1e-12)
    np.testing.assert_allclose(states.velocities[1, 0, 1], 1.0, atol=1e-12)


def test_equal_discs_exchange_velocities_head_on() -> None:
    scene = scene_of(disc(0.1, (0.3, 0.5), (0.4, 0.0)), disc(0.1, (0.7, 0.5), (-0.2, 0.0)))
    states = simulate(scene, np.array([0.5]))
    np.testing.assert_allclose(states.velocities[0], [[-0.2, 0.0], [0.4, 0.0]], atol=1e-12)
    # They meet after 0.2 / 0.6 s at 0.3 + 0.4 / 3, and fly apart for 1 / 6 s.
    first = 0.3 + 0.4 / 3 - 0.2 / 6
    np.testing.assert_allclose(states.positions[0, 0], [first, 0.5], atol=1e-12)


def test_an_oblique_collision_keeps_momentum_energy_and_the_tangential_velocities() -> None:
    scene = scene_of(disc(0.1, (0.3, 0.45), (0.5, 0.0)), disc(0.2, (0.7, 0.55), (-0.3, 0.1)))
    times = np.array([0.0, 0.3])
    states, masses = simulate(scene, times), np.array([0.01, 0.04])
    momenta = (states.velocities * masses[:, None]).sum(axis=1)
    assert not np.allclose(states.velocities[0], states.velocities[1])
    np.testing.assert_allclose(momenta[1], momenta[0], atol=1e-15)
    np.testing.assert_allclose(*energy(scene, times), atol=1e-15)
    change = states.velocities[1] - states.velocities[0]
    # Smooth discs push each other along one line only.
    assert abs(np.cross(np.append(change[0], 0), np.append(change[1], 0))[2]) < 1e-15


@pytest.mark.parametrize("seed", range(5))
def test_energy_lasts_for_many_bounces(seed: int) -> None:
    scene = sample_scene(seed, 1.0, CROWDED)
    total = energy(scene, np.linspace(0, 60, 500))
    assert np.ptp(total) / abs(total[0]) < 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_bodies_stay_in_the_box_and_out_of_each_other(seed: int) -> None:
    scene = sample_scene(seed, 1.6, CROWDED)
    positions = simulate(scene, np.linspace(0, 20, 2000)).positions
    for index, body in enumerate(scene.bodies):
        assert (positions[:, index] >= body.radius - 1e-9).all()
        assert (positions[:, index] <= np.array(scene.box) - body.radius + 1e-9).all()
    for one, other in combinations(range(4), 2):
        gap = np.linalg.norm(positions[:, one] - positions[:, other], axis=-1)
        assert gap.min() >= scene.bodies[one].radius + scene.bodies[other].radius - 1e-9


@pytest.mark.parametrize("seed", range(5))
def test_motion_runs_backwards_to_its_beginning(seed: int) -> None:
    scene = sample_scene(seed, 1.0, CROWDED)
    end = simulate(scene, np.array([3.0]))
    turned = tuple(
        replace(body, position=tuple(position), velocity=tuple(-velocity))
        for body, position, velocity in zip(
            scene.bodies, end.positions[0], end.velocities[0], strict=True
        )
    )
    back = simulate(replace(scene, bodies=turned), np.array([3.0]))
    start = simulate(scene, np.array([0.0]))
    # Each collision of discs multiplies rounding errors a few times, so not to the last digit.
    np.testing.assert_allclose(back.positions, start.positions, atol=1e-7)
    np.testing.assert_allclose(back.velocities, -start.velocities, atol=1e-7)


def test_the_state_at_a_time_does_not_depend_on_the_other_times() -> None:
    scene = sample_scene(3, 1.0, CROWDED)
    coarse, fine = simulate(scene, np.arange(80) / 8), simulate(scene, np.arange(320) / 32)
    np.testing.assert_array_equal(coarse.positions, fine.positions[::4])
    np.testing.assert_array_equal(coarse.velocities, fine.velocities[::4])
    order = np.random.default_rng(0).permutation(80)
    shuffled = simulate(scene, np.arange(80)[order] / 8)
    np.testing.assert_array_equal(shuffled.positions, coarse.positions[order])


def test_a_body_at_rest_without_gravity_stays() -> None:
    body = make_body("square", "blue", "large", (0.4, 0.6), (0.0, 0.0))
    assert simulate(scene_of(body), np.array([100.0])).positions.tolist() == [[[0.4, 0.6]]]


def test_times_before_the_beginning_are_refused() -> None:
    with pytest.raises(ValueError, match=r"-1\.0 s lies before the scene begins"):
        simulate(sample_scene(0, 1.0, WorldConfig()), np.array([0.0, -1.0]))


@pytest.mark.parametrize("period", [1.0, 1.37, 2.0])
def test_a_swing_is_a_sine_about_its_middle_with_the_velocity_of_its_body(period: float) -> None:
    body = disc(0.1, (0.3, 0.5), (0.5, 0.0))
    times = np.linspace(0, 3, 61)
    states = simulate(replace(scene_of(body), period=period), times)
    phase, reach = 2 * math.pi * times / period, 0.5 * period / (2 * math.pi)
    expected = 0.3 + reach * (1 + np.sin(phase))
    np.testing.assert_allclose(states.positions[:, 0, 0], expected, atol=1e-12)
    np.testing.assert_allclose(states.velocities[:, 0, 0], 0.5 * np.cos(phase), atol=1e-12)
    np.testing.assert_allclose(states.positions[:, 0, 1], 0.5, atol=1e-12)


def test_a_swing_comes_back_through_all_contacts() -> None:
    scene = replace(sample_scene(4, 1.0, CROWDED), period=1.6)
    times = np.arange(13) / 8
    states = simulate(scene, np.concatenate([times, times + 1.6]))
    np.testing.assert_allclose(states.positions[:13], states.positions[13:], atol=1e-9)
    straight = simulate(replace(scene, period=0.0), np.array([1.6 / math.pi]))
    np.testing.assert_allclose(
        simulate(scene, np.array([0.4])).positions, straight.positions, atol=1e-9
    )
