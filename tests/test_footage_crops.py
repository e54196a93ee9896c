"""Varied crops of footage: of their bucket's size, from within the picture, changed as they say."""

import numpy as np
import pytest

from benchmarks.footage import HEIGHTS, anywhere, vary
from sora_jax.data.buckets import Bucket

BUCKET = Bucket(5, 64, 64)


def ramp(frames: int, height: int, width: int) -> np.ndarray:
    """A picture whose first colour tells the column and whose second the row."""
    y, x = np.mgrid[:height, :width]
    picture = np.stack([255 * x / width, 255 * y / height, np.full(x.shape, 40.0)], -1)
    return np.repeat(np.round(picture).astype(np.uint8)[None], frames, axis=0)


@pytest.mark.parametrize("shape", [(9, 144, 176), (9, 288, 300), (1, 144, 144), (1, 500, 700)])
def test_crops_lie_in_the_picture_at_one_scale(shape: tuple[int, int, int]) -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        crop = anywhere(ramp(*shape), BUCKET, generator).astype(int)
        assert crop.shape == (5, 64, 64, 3)
        assert abs(crop[..., 2] - 40).max() == 0  # nothing from beyond the edge
        across = (crop[:, :, -1, 0] - crop[:, :, 0, 0]).mean() * shape[2] / 255
        down = (crop[:, -1, :, 1] - crop[:, 0, :, 1]).mean() * shape[1] / 255
        highest = min(shape[1], HEIGHTS[-1])
        assert abs(across / down - 1) < 0.08
        assert 63 * shape[1] / highest * 0.95 < down < 63 * shape[1] / 128 * 1.05


def test_a_camera_goes_over_a_single_picture_and_rests_on_a_still_film() -> None:
    generator = np.random.default_rng(1)
    still = [anywhere(ramp(9, 288, 300), BUCKET, generator) for _ in range(10)]
    assert all((clip == clip[:1]).all() for clip in still)
    moved = [anywhere(ramp(1, 288, 300), BUCKET, generator) for _ in range(10)]
    steps = [np.diff(clip[:, 32, 32, :2].astype(float), axis=0) for clip in moved]
    assert sum(float(abs(step).max()) > 0 for step in steps) >= 9


def test_clips_are_turned_every_way_in_every_order_of_colours_and_lit_otherwise() -> None:
    """Brighter down than across than later, and in one colour than in the next: light and gamma
    keep what is brighter, so that how a clip lies can be read from it."""
    generator = np.random.default_rng(2)
    t, y, x, colour = np.meshgrid(*map(np.arange, (5, 64, 64, 3)), indexing="ij")
    clip = (30 + 2 * t + 2 * y + x + 4 * colour).astype(np.uint8)
    seen = set()
    for _ in range(500):
        varied = vary(clip, generator)
        assert varied.shape == clip.shape
        grey = varied.astype(float).mean(-1)
        slopes = [float(np.diff(grey, axis=axis).mean()) for axis in range(3)]
        order = tuple(np.argsort(varied.mean((0, 1, 2))).tolist())
        seen.add((*(slope > 0 for slope in slopes), abs(slopes[1]) > abs(slopes[2]), order))
    assert len(seen) > 80  # of 2 x 2 x 2 ways, 2 sides to lie on and 6 orders: 96
    means = [float(vary(clip, generator).mean()) for _ in range(100)]
    assert min(means) < 0.8 * clip.mean() < 1.1 * clip.mean() < max(means)


def test_what_is_not_square_does_not_lie_on_its_side() -> None:
    clip = np.random.default_rng(3).integers(0, 256, (5, 48, 80, 3)).astype(np.uint8)
    generator = np.random.default_rng(4)
    assert {vary(clip, generator).shape for _ in range(20)} == {clip.shape}
