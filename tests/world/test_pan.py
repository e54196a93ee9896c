"""Dots pass the frame by their depth and come back to where they were."""

import numpy as np
import pytest

from sora_jax.world import pan
from sora_jax.world.splits import IN_DISTRIBUTION, Cell, Split, is_held_out, ood_grid
from sora_jax.world.unmix import find


def sample(seed: int, split: Split = "train", frames: int = 32) -> pan.Pan:
    return pan.sample(seed, frames, 16.0, split, IN_DISTRIBUTION)


@pytest.mark.parametrize("frames", [17, 32])
@pytest.mark.parametrize("size", [32, 64])
def test_dots_are_seen_where_they_are(size: int, frames: int) -> None:
    for seed in range(12):
        truth = sample(seed, frames=frames)
        blobs = find(pan.render(truth, size), [dot.colour for dot in truth.dots])
        inside = pan.whole(pan.places(truth), truth)
        off = np.linalg.norm(blobs.centroid - pan.places(truth), axis=-1) * size
        assert np.sqrt((off[inside] ** 2).mean()) < 0.06
        assert blobs.present(np.array([np.pi * dot.radius**2 for dot in truth.dots]))[inside].all()


@pytest.mark.parametrize("frames", [16, 17])
def test_the_second_half_is_the_first_backwards(frames: int) -> None:
    video = pan.render(sample(0, frames=frames), 32)
    np.testing.assert_array_equal(video, video[::-1])
    assert (video[0] != video[frames // 2]).any()


def test_near_dots_move_twice_as_far_against_the_camera() -> None:
    truth = sample(1, frames=17)
    way = (pan.places(truth)[8] - pan.places(truth)[0])[:, 0] / truth.travel
    sign = -pan.HEADING[truth.direction]
    np.testing.assert_allclose(way, sign * np.array([1, 1, 1, 2, 2, 2]), atol=1e-12)


@pytest.mark.parametrize("cell", ood_grid())
def test_every_dot_is_whole_at_first_and_half_way_to_the_turn(cell: Cell) -> None:
    for seed in range(50):
        truth = pan.sample(seed, 33, 16.0, "train", cell)
        assert pan.whole(pan.places(truth), truth)[:9].all()


def test_splits_part_colours_and_depths() -> None:
    def held(truth: pan.Pan) -> bool:
        return any(
            is_held_out(pan.COLOURS.index(dot.colour), int(dot.nearness > 1)) for dot in truth.dots
        )

    assert not any(held(sample(seed)) for seed in range(100))
    assert all(held(sample(seed, "held_out")) for seed in range(100))
    seen = {(dot.colour, dot.nearness) for seed in range(200) for dot in sample(seed).dots}
    assert len(seen) == 12  # three quarters of all pairs


def test_captions_tell_the_way_of_the_camera_and_the_dots_of_each_depth() -> None:
    truth = sample(0)
    text = pan.caption(truth)
    assert text.startswith(f"the camera pans {truth.direction} ")
    far, near = text.split(" over ")[1].split(" far away and ")
    assert [dot.colour in far for dot in truth.dots] == [True] * 3 + [False] * 3
    assert [dot.colour in near for dot in truth.dots] == [False] * 3 + [True] * 3
