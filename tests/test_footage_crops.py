"""Varied crops of footage: of their bucket's size, from within the picture, changed as they say."""

import numpy as np
import pytest

from sora_jax.data.buckets import Bucket

footage = pytest.importorskip("benchmarks.footage")
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
        crop = footage.anywhere(ramp(*shape), BUCKET, generator).astype(int)
        assert crop.shape == (5, 64, 64, 3)
        assert abs(crop[..., 2] - 40).max() == 0  # nothing from beyond the edge
        across = (crop[:, :, -1, 0] - crop[:, :, 0, 0]).mean() * shape[2] / 255
        down = (crop[:, -1, :, 1] - crop[:, 0, :, 1]).mean() * shape[1] / 255
        highest = min(shape[1], footage.HEIGHTS[-1])
        assert abs(across / down - 1) < 0.08
        assert 63 * shape[1] / highest * 0.95 < down < 63 * shape[1] / 128 * 1.05


def test_a_camera_goes_over_a_single_picture_and_rests_on_a_still_film() -> None:
    generator = np.random.default_rng(1)
    still = [footage.anywhere(ramp(9, 288, 300), BUCKET, generator) for _ in range(10)]
    assert all((clip == clip[:1]).all() for clip in still)
    moved = [footage.anywhere(ramp(1, 288, 300), BUCKET, generator) for _ in range(10)]
    steps = [np.diff(clip[:, 32, 32, :2].astype(float), axis=0) for clip in moved]
    assert sum(float(abs(step).max()) > 0 for step in steps) >= 9


def test_clips_are_turned_every_way_and_lit_otherwise() -> None:
    generator, clip = np.random.default_rng(2), ramp(5, 64, 64)
    clip[:, :, :, 2] += np.arange(5, dtype=np.uint8)[:, None, None]
    varied = [footage.vary(clip, generator) for _ in range(200)]
    assert {each.shape for each in varied} == {clip.shape}
    order = np.argsort(np.median(clip, axis=(0, 1, 2)))
    assert order.tolist() == [2, 0, 1] or order.tolist() == [2, 1, 0]
    ends = {
        tuple(np.sign(each.astype(int).sum(-1)[at] - each.astype(int).sum(-1)[0, 0, 0]).tolist())
        for each in varied
        for at in [([0, 0], [0, -1], [-1, 0])]
    }
    assert len(ends) >= 4  # brighter or darker across and down
    means = np.array([each.mean() for each in varied])
    assert means.min() < 0.9 * clip.mean() < 1.05 * clip.mean() < means.max()
    tiny = np.random.default_rng(3).integers(0, 256, (5, 48, 80, 3)).astype(np.uint8)
    assert footage.vary(tiny, generator).shape == tiny.shape
