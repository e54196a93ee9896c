"""Renders show the state: areas, places and backgrounds are right at any size and frame rate."""

import math
from dataclasses import replace

import numpy as np
import pytest

from sora_jax.world.render import render
from sora_jax.world.scene import (
    CAMERA_SPEED,
    EXTENT,
    SIZE_RADIUS,
    Scene,
    Shape,
    Size,
    WorldConfig,
    make_body,
    sample_scene,
)

EMPTY = Scene((), 0.0, (1.0, 1.0), 5, 0.06, (0.0, 0.0), 0)


def white(shape: Shape, size: Size, position: tuple[float, float]) -> Scene:
    body = make_body(shape, "white", size, position, (0.0, 0.0))
    return replace(EMPTY, bodies=(body,), texture=0.0)


def amounts(scene: Scene, side: int) -> np.ndarray:
    """How much of each pixel is covered, from a render and one without the body."""
    shown = render(scene, 1, side, side, 8.0)[0].astype(float).mean(axis=-1)
    behind = render(replace(scene, bodies=()), 1, side, side, 8.0)[0].astype(float).mean(axis=-1)
    return (shown - behind) / (0.97 * 255 - behind)


@pytest.mark.parametrize("shape", list(EXTENT))
@pytest.mark.parametrize("size", list(SIZE_RADIUS))
def test_all_shapes_of_a_size_cover_the_same_area(shape: Shape, size: Size) -> None:
    covered = amounts(white(shape, size, (0.47, 0.52)), 64)
    assert covered.sum() / 64**2 == pytest.approx(math.pi * SIZE_RADIUS[size] ** 2, rel=0.015)


@pytest.mark.parametrize("shape", list(EXTENT))
def test_a_shape_stands_at_its_position_inside_its_disc(shape: Shape) -> None:
    covered = amounts(white(shape, "large", (0.4, 0.55)), 128)
    centres = (np.arange(128) + 0.5) / 128
    total = covered.sum()
    assert (covered.sum(axis=0) @ centres) / total == pytest.approx(0.4, abs=0.2 / 128)
    assert (covered.sum(axis=1) @ centres) / total == pytest.approx(0.55, abs=0.2 / 128)
    distance = np.hypot(centres[None, :] - 0.4, centres[:, None] - 0.55)
    radius = EXTENT[shape] * SIZE_RADIUS["large"]
    assert covered[distance > radius + 1 / 128].max() < 0.02
    # The enclosing disc is the smallest: somewhere the shape reaches its edge.
    assert covered[distance > radius - 3 / 128].max() > 0.3


def test_the_triangle_points_up() -> None:
    covered = amounts(white("triangle", "large", (0.5, 0.5)), 64)
    assert (covered[22] > 0.5).sum() < (covered[36] > 0.5).sum()


@pytest.mark.parametrize("seed", range(6))
def test_a_scene_looks_the_same_at_any_resolution(seed: int) -> None:
    scene = sample_scene(seed, 40 / 24, WorldConfig(camera_pan=0.5))
    small, large = render(scene, 5, 24, 40, 8.0), render(scene, 5, 96, 160, 8.0)
    pooled = large.reshape(5, 24, 4, 40, 4, 3).mean(axis=(2, 4))
    difference = abs(pooled - small)
    # Coverage by distance is not exact at corners: one pixel may be a sixth of the contrast off.
    assert difference.mean() < 0.5
    assert difference.max() < 40


def test_a_frame_depends_on_its_time_alone() -> None:
    scene = sample_scene(4, 1.0, WorldConfig(camera_pan=1.0))
    slow, fast = render(scene, 9, 32, 32, 8.0), render(scene, 33, 32, 32, 32.0)
    np.testing.assert_array_equal(slow, fast[::4])
    np.testing.assert_array_equal(render(scene, 1, 32, 32, 8.0), slow[:1])


def test_the_background_stays_behind_as_the_camera_pans() -> None:
    scene = replace(EMPTY, camera_velocity=(CAMERA_SPEED, 0.0))
    video = render(scene, 2, 40, 40, 4.0).astype(int)
    # 0.3 units in a second are 3 of 40 pixels in a quarter.
    assert abs(video[1, :, :-3] - video[0, :, 3:]).max() <= 1
    assert abs(video[1] - video[0]).max() > 1


def test_the_background_is_dark_textured_and_of_its_seed() -> None:
    for seed in range(50):
        frame = render(replace(EMPTY, background_seed=seed, texture=0.08), 1, 32, 32, 8.0)
        assert frame.max() < 0.3 * 255
        assert 2 < np.ptp(frame.mean(axis=-1)) <= 2 * 0.08 * 255 + 1
    other = render(replace(EMPTY, background_seed=6), 1, 32, 32, 8.0)
    assert (render(EMPTY, 1, 32, 32, 8.0) != other).any()


def test_another_aspect_ratio_than_the_scene_has_is_refused() -> None:
    with pytest.raises(ValueError, match="aspect ratio 1.0000, not that of 40 x 24 pixels"):
        render(EMPTY, 1, 24, 40, 8.0)
