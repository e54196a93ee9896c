"""Clips of the procedural worlds become sets to train on, their captions a few tokens each."""

from pathlib import Path

import numpy as np
import pytest

from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.data.build import SourceClip, build_set
from sora_jax.data.media import decode_record
from sora_jax.data.sources import ClipSet
from sora_jax.data.tokenizer import Tokenizer
from sora_jax.world.worlds import WORLDS, WorldClips

BUCKET = Bucket(17, 32, 32)
CONFIG = DataConfig(buckets=(BUCKET,), shape_classes=(ShapeClass(8, 64),))


@pytest.mark.parametrize("name", list(WORLDS))
def test_clips_of_a_world_make_a_set(name: str, tmp_path: Path) -> None:
    clips = WorldClips(WORLDS[name], "train", range(12), 17, 32, 8.0)
    build_set(
        (
            SourceClip(clip.clip_id, clip.clip_id, clip.caption, clip.video, clip.fps)
            for clip in clips
        ),
        tmp_path / "set",
        CONFIG,
    )
    source = ClipSet(tmp_path / "set").source(BUCKET)
    assert len(source) == 12
    for index in (0, 11):
        record, clip = source[index], clips[index]
        assert record.caption == clip.caption
        assert record.clip_id == clip.clip_id
        assert np.abs(decode_record(record).astype(int) - clip.video).mean() < 1


@pytest.mark.parametrize("name", list(WORLDS))
def test_captions_fit_the_text_of_a_default_config(name: str) -> None:
    captions = [clip.caption for clip in WorldClips(WORLDS[name], "train", range(300), 17, 16, 8.0)]
    tokenizer = Tokenizer.train(captions, CONFIG.vocabulary_size)
    held = [clip.caption for clip in WorldClips(WORLDS[name], "held_out", range(50), 17, 16, 8.0)]
    ids = tokenizer.encode(captions + held, 64)
    lengths = (ids != 0).sum(1)
    assert lengths.max() <= CONFIG.text_length
    if name == "painter":
        words = [len(caption.split()) for caption in captions + held]
        np.testing.assert_array_equal(lengths, np.array(words) + 1)  # each action is one token
