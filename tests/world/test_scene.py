"""Scenes come from their seeds: hashed, within the config, and free of contact for as long as it
says."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from sora_jax.errors import ConfigError
from sora_jax.world.dynamics import simulate
from sora_jax.world.scene import PALETTE, PERIOD, WorldConfig, sample_scene

CONFIG = WorldConfig(motions=("still", "constant", "gravity"), camera_pan=0.3)


def test_a_seed_gives_the_same_scene_again() -> None:
    assert sample_scene(7, 1.0, CONFIG) == sample_scene(7, 1.0, CONFIG)
    assert sample_scene(7, 1.0, CONFIG) != sample_scene(8, 1.0, CONFIG)


def test_a_scene_that_takes_hundreds_of_restarts_is_found() -> None:
    crowded = dataclasses.replace(CONFIG, free_time=0.75, swing=0.3)
    assert len(sample_scene(12616499, 1.0, crowded).bodies) == 4


def test_neighbouring_seeds_are_independent() -> None:
    scenes = [sample_scene(seed, 1.0, WorldConfig(max_objects=1)) for seed in range(1500)]
    values = np.array(
        [
            (*s.bodies[0].position, s.bodies[0].mass, list(PALETTE).index(s.bodies[0].colour))
            for s in scenes
        ]
    )
    values = (values - values.mean(axis=0)) / values.std(axis=0)
    across = values[:-1].T @ values[1:] / (len(values) - 1)
    # The standard error of a correlation over 1500 pairs is 0.026.
    assert abs(across).max() < 0.1


def test_every_choice_of_the_config_is_drawn_about_evenly() -> None:
    config = WorldConfig(max_objects=3)
    scenes = [sample_scene(seed, 1.0, config) for seed in range(900)]
    counts = np.bincount([len(scene.bodies) for scene in scenes], minlength=4)[1:]
    assert abs(counts / 300 - 1).max() < 0.2
    colours = [body.colour for scene in scenes for body in scene.bodies]
    shares = np.array([colours.count(colour) for colour in PALETTE]) / len(colours)
    assert abs(shares * 8 - 1).max() < 0.25
    assert {body.shape for scene in scenes for body in scene.bodies} == set(config.shapes)
    assert {body.size for scene in scenes for body in scene.bodies} == set(config.sizes)
    assert 0.4 < np.mean([scene.gravity > 0 for scene in scenes]) < 0.6


def test_objects_of_a_scene_have_colours_of_their_own() -> None:
    for seed in range(100):
        colours = [body.colour for body in sample_scene(seed, 1.0, CONFIG).bodies]
        assert len(set(colours)) == len(colours)


@pytest.mark.parametrize("aspect", [0.6, 1.0, 40 / 24, 2.0])
def test_nothing_touches_before_the_free_time(aspect: float) -> None:
    times = np.linspace(0, 0.499, 20)
    for seed in range(60):
        scene = sample_scene(seed, aspect, CONFIG)
        assert scene.box[0] / scene.box[1] == pytest.approx(aspect)
        assert math.prod(scene.box) == pytest.approx(1)
        start = simulate(scene, np.zeros(1))
        flight = start.positions + start.velocities * times[:, None, None]
        flight[..., 1] += 0.5 * scene.gravity * times[:, None] ** 2
        np.testing.assert_allclose(simulate(scene, times).positions, flight, atol=1e-12)


def test_directions_and_speeds_are_the_named_ones() -> None:
    config = WorldConfig(motions=("constant",), speeds=("fast",), directions=("up",))
    for seed in range(20):
        for body in sample_scene(seed, 1.0, config).bodies:
            assert body.velocity == (0.0, -0.5)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"shapes": ()}, r"world\.shapes is \(\): give one or more of"),
        ({"colours": ("red", "pink")}, r"world\.colours is .*'pink'"),
        ({"sizes": ("small", "small")}, "each once"),
        ({"min_objects": 3, "max_objects": 2}, r"world\.min_objects is 3"),
        ({"max_objects": 9}, r"number of colours \(8\)"),
        ({"texture": 0.5}, r"world\.texture is 0\.5"),
        ({"camera_pan": 2.0}, r"world\.camera_pan is 2\.0"),
        ({"free_time": -1.0}, r"world\.free_time is -1\.0"),
        ({"swing": -0.1}, r"world\.swing is -0\.1"),
        ({"swing": 0.1}, r"world\.free_time is 0\.5: .* at least 0\.64 s"),
    ],
)
def test_a_config_that_makes_no_sense_is_refused(change: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        WorldConfig(**change)


def test_a_share_of_the_scenes_swings_and_they_are_otherwise_the_same() -> None:
    config = WorldConfig(motions=("constant", "gravity"), free_time=0.75)
    swung = dataclasses.replace(config, swing=0.4)
    periods = []
    for seed in range(600):
        scene, plain = sample_scene(seed, 1.0, swung), sample_scene(seed, 1.0, config)
        assert dataclasses.replace(scene, period=0.0) == plain
        if scene.gravity:
            assert scene.period == 0.0
        else:
            periods.append(scene.period)
    seen = np.array([period for period in periods if period])
    assert abs(len(seen) / len(periods) - 0.4) < 0.09  # 3 standard errors
    assert PERIOD[0] <= seen.min() < 1.1
    assert 1.9 < seen.max() <= PERIOD[1]


def test_what_swings_touches_nothing() -> None:
    config = WorldConfig(motions=("constant",), free_time=0.75, swing=1.0)
    for seed in range(100):
        scene = sample_scene(seed, 1.0, config)
        turning = np.array([0.25, 0.75]) * scene.period
        end = simulate(dataclasses.replace(scene, period=0.0), np.array([scene.period / math.pi]))
        starts = [[body.position for body in scene.bodies]]
        np.testing.assert_allclose(
            simulate(scene, turning).positions, np.concatenate([end.positions, starts]), atol=1e-12
        )
        assert end.velocities[0].tolist() == [list(body.velocity) for body in scene.bodies]


def test_more_bodies_than_fit_are_refused() -> None:
    config = WorldConfig(min_objects=8, max_objects=8, sizes=("large",), free_time=2.0)
    with pytest.raises(ConfigError, match=r"8 objects found no place .* lower world\.max_objects"):
        sample_scene(0, 1.0, config)
