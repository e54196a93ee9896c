"""The source is a random-access sequence of clips, each a pure function of its seed."""

import numpy as np
import pytest

from sora_jax.world.scene import WorldConfig
from sora_jax.world.source import WorldSource


def source(seeds: range = range(10, 20), frames: int = 5) -> WorldSource:
    return WorldSource(WorldConfig(camera_pan=0.5), frames, 24, 40, 8.0, seeds)


def test_a_clip_is_the_same_bytes_in_any_order_and_range() -> None:
    forwards = list(source())
    backwards = [source()[index] for index in reversed(range(10))][::-1]
    for one, other in zip(forwards, backwards, strict=True):
        np.testing.assert_array_equal(one.video, other.video)
        assert (one.caption, one.clip_id, one.fps) == (other.caption, other.clip_id, other.fps)
    shifted = source(range(15, 16))[0]
    assert shifted.video.tobytes() == forwards[5].video.tobytes()
    assert shifted.caption == forwards[5].caption


def test_clips_have_the_asked_size_and_ids_of_their_own() -> None:
    clips = list(source())
    assert len(source()) == len(clips) == 10
    assert all(clip.video.shape == (5, 24, 40, 3) for clip in clips)
    assert all(clip.video.dtype == np.uint8 for clip in clips)
    assert len({clip.clip_id for clip in clips}) == 10
    assert clips[0].clip_id == "world-10-5x24x40"


def test_both_caption_styles_appear_and_images_tell_no_motion() -> None:
    dense = [" small " in c or " medium " in c or " large " in c for c in captions(5)]
    assert 10 < sum(dense) < 50
    verbs = {"moves", "falls", "thrown", "rests", "camera"}
    assert any(verbs & set(text.split()) for text in captions(5))
    assert not any(verbs & set(text.split()) for text in captions(1))


def captions(frames: int) -> list[str]:
    return [clip.caption for clip in source(range(60), frames)]


def test_past_the_end_is_an_index_error() -> None:
    with pytest.raises(IndexError):
        source()[10]
