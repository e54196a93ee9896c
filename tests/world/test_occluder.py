"""A shape passes behind the bar where and when its truth says, at any size and length."""

import numpy as np
import pytest

from sora_jax.world import occluder
from sora_jax.world.splits import IN_DISTRIBUTION, Cell, Split, is_held_out, ood_grid
from sora_jax.world.unmix import find


def sample(seed: int, split: Split = "train", frames: int = 32) -> occluder.Occluder:
    return occluder.sample(seed, frames, 16.0, split, IN_DISTRIBUTION)


@pytest.mark.parametrize("frames", [17, 32])
@pytest.mark.parametrize("size", [32, 64])
def test_the_shape_is_seen_where_it_is_and_hidden_behind_the_bar(size: int, frames: int) -> None:
    for seed in range(12):
        truth = sample(seed, frames=frames)
        area = np.pi * truth.radius**2
        blobs = find(occluder.render(truth, size), [truth.colour])
        after, behind = occluder.shown_after(truth), occluder.hidden(truth)
        assert after.any()
        assert behind.any()
        assert blobs.present(area)[after].all()
        assert blobs.area[behind].max() < 0.05 * area
        off = np.linalg.norm(blobs.centroid[:, 0] - occluder.places(truth), axis=-1)
        assert off[after].max() * size < 0.15


@pytest.mark.parametrize("cell", ood_grid())
@pytest.mark.parametrize("frames", [17, 32])
def test_each_cell_shows_the_shape_before_behind_and_after(cell: Cell, frames: int) -> None:
    for seed in range(50):
        truth = occluder.sample(seed, frames, 16.0, "train", cell)
        assert occluder.hidden(truth).any()
        assert occluder.shown_after(truth).any()
        assert truth.extent < min(truth.start)
        assert max(truth.start) < 1 - truth.extent


def test_motion_is_told_per_clip() -> None:
    long, short = sample(1, frames=33), sample(1, frames=17)
    np.testing.assert_allclose(occluder.places(long)[::2], occluder.places(short))


def test_splits_part_colours_and_shapes() -> None:
    def held(truth: occluder.Occluder) -> bool:
        return is_held_out(occluder.COLOURS.index(truth.colour), occluder.SHAPES.index(truth.shape))

    assert not any(held(sample(seed)) for seed in range(100))
    assert all(held(sample(seed, "held_out")) for seed in range(100))
    seen = {(t.colour, t.shape) for t in map(sample, range(300))}
    assert len(seen) == 21  # three quarters of all pairs


def test_captions_tell_looks_direction_and_speed() -> None:
    captions = {occluder.caption(sample(seed)) for seed in range(1000)}
    assert len(captions) == 21 * 4
    assert "a red square moves left slowly behind a grey bar and comes out again" in captions
    assert "an orange circle moves right fast behind a grey bar and comes out again" in captions
