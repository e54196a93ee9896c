"""All worlds by name: clips of any size and length, from seeds, in splits and cells."""

from itertools import pairwise

import numpy as np
import pytest

from sora_jax.errors import ConfigError
from sora_jax.world.splits import IN_DISTRIBUTION, ood_grid
from sora_jax.world.worlds import WORLDS, WorldClips, find_world

NAMES = pytest.mark.parametrize("name", list(WORLDS))


@NAMES
@pytest.mark.parametrize(("frames", "size"), [(32, 64), (17, 32), (13, 32)])
def test_clips_have_the_size_asked_for_and_a_plain_caption(
    name: str, frames: int, size: int
) -> None:
    clip = WORLDS[name].clip(0, "train", frames, size, 8.0)
    assert clip.video.shape == (frames, size, size, 3)
    assert clip.video.dtype == np.uint8
    assert clip.fps == 8.0
    assert clip.caption == clip.caption.lower().strip(".")
    assert clip.caption


@NAMES
def test_a_clip_is_a_pure_function_of_its_seed(name: str) -> None:
    one, again, other = (WORLDS[name].clip(seed, "train", size=32) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.video, again.video)
    assert one.truth == again.truth
    assert one.caption == again.caption
    assert (one.video != other.video).any()


@NAMES
def test_neighbouring_seeds_are_independent(name: str) -> None:
    firsts = np.stack([WORLDS[name].clip(seed, "train", 13, 16).video[0] for seed in range(60)])
    rows = firsts.reshape(60, -1).astype(float)
    rows -= rows.mean(0)
    near = np.mean([row @ after for row, after in pairwise(rows)])
    far = np.mean([row @ after for row, after in zip(rows[:-7], rows[7:], strict=True)])
    size = (rows**2).sum(1).mean()
    assert abs(near) < 0.1 * size
    assert abs(far) < 0.1 * size


@NAMES
def test_things_move_and_twice_the_pixels_show_the_same(name: str) -> None:
    large, small = (WORLDS[name].clip(3, "train", 17, size) for size in (64, 32))
    halved = large.video.reshape(17, 32, 2, 32, 2, 3).mean((2, 4))
    assert abs(halved - small.video).mean() < 1
    assert (small.video[0] != small.video[8]).any()


@NAMES
def test_splits_and_cells_make_other_clips(name: str) -> None:
    clips = WorldClips(WORLDS[name], "train", range(3), 13, 16, 8.0)
    cells = [WorldClips(WORLDS[name], "train", range(3), 13, 16, 8.0, cell) for cell in ood_grid()]
    held = WorldClips(WORLDS[name], "held_out", range(3), 13, 16, 8.0)
    ids = [clip.clip_id for each in (clips, held, *cells) for clip in each]
    assert len(set(ids)) == 3 * (2 + len(cells))
    videos = {clip.video.tobytes() for each in (clips, *cells) for clip in each}
    assert len(videos) == 3 * (1 + len(cells))


def test_items_are_those_of_their_seeds() -> None:
    clips = WorldClips(WORLDS["pan"], "train", range(5, 8), 13, 16, 8.0)
    assert len(clips) == 3
    np.testing.assert_array_equal(clips[1].video, WORLDS["pan"].clip(6, "train", 13, 16, 8.0).video)
    with pytest.raises(IndexError):
        clips[3]


def test_too_short_a_clip_is_refused() -> None:
    with pytest.raises(ConfigError, match="world painter: 12 frames are too short"):
        WORLDS["painter"].clip(0, "held_out", 12)


def test_the_grid_leaves_training_out() -> None:
    assert len(ood_grid()) == 8
    assert IN_DISTRIBUTION not in ood_grid()


def test_a_wrong_name_is_told_with_the_nearest() -> None:
    assert find_world("cube").name == "cube"
    with pytest.raises(ConfigError, match="no world 'cubes'; did you mean 'cube'"):
        find_world("cubes")


def test_no_caption_needs_more_tokens_than_a_config_may_give() -> None:
    longest = max(
        len(world.caption(world.sample(seed, 33, 16.0, "train", IN_DISTRIBUTION)).split())
        for world in WORLDS.values()
        for seed in range(20)
    )
    assert longest <= 25
