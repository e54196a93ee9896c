"""Drawing puts the right area at the right place, on every frame at once."""

import numpy as np
import pytest

from sora_jax.world.canvas import BACKGROUND, blank, box_cover, draw, lay, pixels, shape_cover


def test_boxes_cover_their_exact_area_at_any_offset() -> None:
    rng = np.random.default_rng(0)
    low = rng.uniform(0.1, 0.4, (50, 2))
    high = low + rng.uniform(0.01, 0.5, (50, 2))
    cover = box_cover(low, high, 16)
    np.testing.assert_allclose(cover.sum((1, 2)) / 16**2, np.prod(high - low, -1), rtol=1e-5)
    centre = (np.arange(16) + 0.5) / 16
    wide = high - low > 2 / 16
    x = (cover.sum(1) @ centre) / cover.sum((1, 2))
    np.testing.assert_allclose(x[wide[:, 0]], (low + high)[wide[:, 0], 0] / 2, atol=0.004)


def test_a_box_outside_the_frame_covers_nothing() -> None:
    assert box_cover(np.array([[1.1, 0.0]]), np.array([[1.3, 1.0]]), 16).sum() == 0


def test_each_frame_has_its_own_place_radius_and_colour() -> None:
    canvas = blank(2, 64)
    radius = np.array([0.1, 0.2])
    cover = shape_cover("circle", np.array([[0.3, 0.5], [0.6, 0.4]]), radius, 64)
    lay(canvas, cover, np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]))
    np.testing.assert_allclose(cover.sum((1, 2)) / 64**2, np.pi * radius**2, rtol=0.01)
    np.testing.assert_allclose(canvas[0, 32, 19], (1, 0, 0), atol=1e-6)
    np.testing.assert_allclose(canvas[1, 25, 38], (0, 1, 0), atol=1e-6)
    np.testing.assert_allclose(canvas[0, 25, 38], BACKGROUND, atol=1e-6)


def test_later_things_lie_over_earlier_ones() -> None:
    canvas = blank(1, 32)
    centre = np.array([[0.5, 0.5]])
    draw(canvas, "circle", "red", centre, 0.3)
    draw(canvas, "circle", "white", centre, 0.1)
    frame = pixels(canvas)[0]
    assert frame[16, 16].min() > 240
    assert frame[16, 9, 0] > 240 > 60 > frame[16, 9, 1]


@pytest.mark.parametrize("size", [32, 64])
def test_pixel_size_changes_nothing_but_the_sampling(size: int) -> None:
    canvas = blank(1, size)
    draw(canvas, "triangle", "white", np.array([[0.4, 0.6]]), 0.2)
    share = (canvas[0, ..., 0] - BACKGROUND[0]).mean() / (0.97 - BACKGROUND[0])
    assert share == pytest.approx(np.pi * 0.2**2, rel=0.02)
