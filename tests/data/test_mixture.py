"""Several sets as one: exact shares, each record once in an epoch of its set, on any hosts."""

import collections
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from sora_jax.data.buckets import DataConfig, Period
from sora_jax.data.build import build_set
from sora_jax.data.mixture import Mixture, open_clips
from sora_jax.data.pipeline import Batches, Steps
from sora_jax.data.schema import DataError, Encoding
from sora_jax.data.sources import ClipSet
from sora_jax.errors import ConfigError

ROWS = (8, 4, 4, 4)
OTHER_SIZES = (30, 8, 5, 0)  # no clip of the last bucket


@pytest.fixture(scope="module")
def other_set(tmp_path_factory: pytest.TempPathFactory, numbers: SimpleNamespace) -> ClipSet:
    """Clips whose pixels count on from 100."""
    directory = tmp_path_factory.mktemp("sets") / "other"
    clips = [
        numbers.clip(bucket, 100 + number)
        for bucket, size in zip(numbers.config.buckets, OTHER_SIZES, strict=True)
        for number in range(size)
    ]
    build_set(clips, directory, numbers.config)
    return ClipSet(directory)


@pytest.fixture(scope="module")
def mixture(clip_set: ClipSet, other_set: ClipSet) -> Mixture:
    return Mixture({"first": clip_set, "other": other_set})


@pytest.fixture(scope="module")
def config(numbers: SimpleNamespace) -> DataConfig:
    changed: DataConfig = dataclasses.replace(
        numbers.config, sources=(("first", 3.0), ("other", 1.0)), caption_dropout=0.0
    )
    return changed


CURRICULUM = (Period(150, sources=(("first", 1.0),)), Period(260, sources=(("other", 0.0),)))


def stream(steps: Steps, count: int) -> dict[int, dict[int, int]]:
    """Of each bucket, the clip at each position."""
    found: dict[int, dict[int, int]] = collections.defaultdict(dict)
    for step in range(count):
        bucket, batch = steps[step]
        clips = batch.video[:, 0, 0, 0, 0].tolist()
        found[bucket] |= dict(zip(batch.example_id.tolist(), clips, strict=True))
    return found


def assert_even(clips: list[int], size: int) -> None:
    """Every clip of a set comes as often as any other, or once more."""
    counts = collections.Counter(clips)
    times = len(clips) // size
    assert len(counts) == size
    assert set(counts.values()) <= {times, times + 1}


def test_shares_are_exact_and_every_record_comes_once_in_an_epoch(
    mixture: Mixture, config: DataConfig, numbers: SimpleNamespace
) -> None:
    found = stream(Steps(mixture, config, ROWS, 7), 300)
    for bucket, clips in found.items():
        whole = [clips[position] for position in range(len(clips) // 100 * 100)]
        size = OTHER_SIZES[bucket]
        for start in range(0, len(whole), 100):
            others = sum(clip >= 100 for clip in whole[start : start + 100])
            assert others == (25 if size else 0)
        assert_even([clip for clip in whole if clip < 100], numbers.sizes[bucket])
        if size:
            assert_even([clip for clip in whole if clip >= 100], size)


def test_weights_of_sources_change_without_hole_or_repeat(
    mixture: Mixture, config: DataConfig, numbers: SimpleNamespace
) -> None:
    steps = Steps(mixture, config, ROWS, 7, curriculum=CURRICULUM)
    shares: dict[int, list[bool]] = {0: [], 150: [], 260: []}
    for step in range(400):
        _, batch = steps[step]
        start = max(start for start in shares if start <= step)
        if batch.video.shape[1] < 9:  # a bucket that both have clips for
            shares[start] += (batch.video[:, 0, 0, 0, 0] >= 100).tolist()
    means = [np.mean(drawn) for drawn in shares.values()]
    assert means == pytest.approx([0.25, 0.5, 0.0], abs=0.01)
    for bucket, clips in stream(steps, 260).items():  # both periods whole
        assert sorted(clips) == list(range(len(clips)))
        assert_even([clip for clip in clips.values() if clip < 100], numbers.sizes[bucket])
        if OTHER_SIZES[bucket]:
            assert_even([c for c in clips.values() if c >= 100], OTHER_SIZES[bucket])


def test_hosts_together_read_what_one_reads_and_a_state_goes_on(
    mixture: Mixture, config: DataConfig, shares: Any
) -> None:
    alone = Steps(mixture, config, ROWS, 7, curriculum=CURRICULUM)
    hosts = [
        Steps(mixture, config, ROWS, 7, [share] * 4, curriculum=CURRICULUM) for share in shares(4)
    ]
    for step in (*range(40), *range(140, 160), 10**9):
        index, whole = alone[step]
        own = [host[step] for host in hosts]
        assert {of_host for of_host, _ in own} == {index}
        joined = jax.tree.map(lambda *parts: np.concatenate(parts), *(batch for _, batch in own))
        jax.tree.map(np.testing.assert_array_equal, joined, whole)
    batches = Batches(alone, 147)
    state = batches.state()
    other = Batches(Steps(mixture, config, ROWS, 7))
    with pytest.raises(DataError, match="use the same set, seed and data config"):
        other.restore(state)
    heavier = dataclasses.replace(config, sources=(("first", 3.0), ("other", 2.0)))
    with pytest.raises(DataError, match="use the same set, seed and data config"):
        Batches(Steps(mixture, heavier, ROWS, 7, curriculum=CURRICULUM)).restore(state)


def test_sets_that_cannot_be_read_as_one_are_told(
    mixture: Mixture, config: DataConfig, clip_set: ClipSet, other_set: ClipSet
) -> None:
    latents = SimpleNamespace(directory="latents", encoding=Encoding("set", "vae", 4))
    with pytest.raises(DataError, match="holds clips and latents latents by autoencoder vae"):
        Mixture({"first": clip_set, "second": latents})
    with pytest.raises(ConfigError, match="bucket 9x16x8 is drawn from sources that have no clip"):
        Steps(
            mixture, dataclasses.replace(config, sources=(("first", 0.0), ("other", 1.0))), ROWS, 7
        )
    with pytest.raises(ConfigError, match="data.sources names .'first', 'other'., in this order"):
        Steps(Mixture({"other": other_set, "first": clip_set}), config, ROWS, 7)
    with pytest.raises(ConfigError, match="data.sources names"):
        Steps(clip_set, config, ROWS, 7)
    for data, sentence in (
        ([str(clip_set.directory)], "give --data first=DIRECTORY --data other=DIRECTORY"),
        (["first=a", "second=b"], "the experiment draws from 2 sources: give --data first="),
    ):
        with pytest.raises(ConfigError, match=sentence):
            open_clips(data, config)
    named = [f"other={other_set.directory}", f"first={clip_set.directory}"]
    opened = open_clips(named, config)
    assert isinstance(opened, Mixture)
    assert (list(opened.sets), opened.id) == (["first", "other"], mixture.id)
    with pytest.raises(ConfigError, match="--data names 2 sets: give one, or data.sources"):
        open_clips(named, dataclasses.replace(config, sources=()))


def test_clips_with_frames_to_spare_give_another_window_at_every_position(
    tmp_path: Path, numbers: SimpleNamespace, shares: Any
) -> None:
    bucket = numbers.config.buckets[1]
    times = np.arange(13, dtype=np.uint8)[:, None, None, None]
    clips = [
        numbers.clip(
            bucket,
            number,
            video=np.broadcast_to(times + 20 * number, (13, bucket.height, bucket.width, 3)),
            duration=bucket.frames,
        )
        for number in range(4)
    ]
    own: DataConfig = dataclasses.replace(
        numbers.config, buckets=(bucket,), spare_frames=8, frame_steps=(1, 3)
    )
    build_set(clips, tmp_path / "set", own)
    spare = ClipSet(tmp_path / "set")
    assert spare.source(bucket)[0].frames == 13
    steps, seen = Steps(spare, own, [4], 7), set()
    halves = [Steps(spare, own, [4], 7, [share]) for share in shares(2)]
    for step in range(60):
        _, batch = steps[step]
        frames = batch.video[:, :, 0, 0, 0].astype(int) % 20
        every = frames[:, 1] - frames[:, 0]
        np.testing.assert_array_equal(np.diff(frames), np.repeat(every[:, None], 4, 1))
        np.testing.assert_allclose(batch.fps, 8.0 / every)
        seen |= set(zip(frames[:, 0].tolist(), every.tolist(), strict=True))
        together = np.concatenate([half[step][1].video for half in halves])
        np.testing.assert_array_equal(together, batch.video)
    assert seen == {(start, 1) for start in range(9)} | {(0, 3)}
