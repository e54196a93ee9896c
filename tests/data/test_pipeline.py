"""The loader: the stream is a pure function of (seed, step), on any number of hosts."""

import collections
import dataclasses
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sora_jax.data.buckets import Bucket, Period
from sora_jax.data.build import build_set
from sora_jax.data.pipeline import Batches, Steps, own_rows
from sora_jax.data.schedule import BLOCK_STEPS
from sora_jax.data.schema import DataError
from sora_jax.data.sources import ClipSet
from sora_jax.errors import ConfigError
from sora_jax.types import VideoBatch
from tests.kept import check_golden

ROWS = (8, 4, 4, 2)


@pytest.fixture
def steps(clip_set: ClipSet, numbers: SimpleNamespace) -> Steps:
    return Steps(clip_set, numbers.config, ROWS, seed=7)


def same(one: VideoBatch, two: VideoBatch) -> bool:
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(two), strict=True)
    return all(np.array_equal(a, b) for a, b in pairs)


def numbers_in(batch: VideoBatch) -> list[int]:
    """Which clips a batch holds, read from the pixels."""
    return np.asarray(batch.video)[:, 0, 0, 0, 0].tolist()


def test_batches_have_the_bucket_s_shape_and_clips(
    steps: Steps, clip_set: ClipSet, numbers: SimpleNamespace
) -> None:
    seen = set()
    for step in range(30):
        index, batch = steps[step]
        bucket, rows = numbers.config.buckets[index], ROWS[index]
        seen.add(index)
        assert batch.video.shape == (rows, bucket.frames, bucket.height, bucket.width, 3)
        assert batch.video.dtype == np.uint8
        assert batch.fps.tolist() == [8.0] * rows
        assert batch.example_id.dtype == np.int32
        for number, ids in zip(numbers_in(batch), np.asarray(batch.text), strict=True):
            assert clip_set.tokenizer.decode(ids) in ("", f"clip number {number}")
    assert seen == {0, 1, 2, 3}


def test_each_clip_comes_once_in_an_epoch(steps: Steps, numbers: SimpleNamespace) -> None:
    streams: dict[int, dict[int, int]] = collections.defaultdict(dict)
    for step in range(2 * BLOCK_STEPS):
        index, batch = steps[step]
        positions = batch.example_id.tolist()
        assert not streams[index].keys() & set(positions)
        streams[index].update(zip(positions, numbers_in(batch), strict=True))
    for index, stream in streams.items():
        assert sorted(stream) == list(range(len(stream)))  # no hole
        size = numbers.sizes[index]
        epochs = [
            [stream[epoch * size + i] for i in range(size)] for epoch in range(len(stream) // size)
        ]
        assert len(epochs) >= 3
        assert all(sorted(epoch) == list(range(size)) for epoch in epochs)
        assert len({tuple(epoch) for epoch in epochs}) > 1  # shuffled anew


def test_the_clips_and_captions_are_as_they_were(
    clip_set: ClipSet, numbers: SimpleNamespace, update_golden: bool
) -> None:
    steps = Steps(clip_set, numbers.config, ROWS, seed=7)
    lines = []
    for step in (*range(60), *range(10**9, 10**9 + 20)):
        bucket, batch = steps[step]
        clips = np.asarray(batch.video)[:, 0, 0, 0, 0].tolist()
        kept = [int(ids[0] != 1) for ids in batch.text]  # else the end mark alone
        lines.append(f"{step} {bucket} {clips} {kept} {batch.example_id.tolist()}\n")
    check_golden("stream.txt", "".join(lines), update_golden, __file__)


@pytest.mark.parametrize("count", [2, 4])
def test_hosts_together_read_what_one_reads(
    clip_set: ClipSet, numbers: SimpleNamespace, shares: Any, count: int
) -> None:
    rows = (8, 4, 4, 4)
    curriculum = (Period(210, (("1x8x8", 0.0), ("9x16x8", 3.0))), Period(333, (("1x8x8", 1.0),)))
    make = functools.partial(Steps, clip_set, numbers.config, rows, 7, curriculum=curriculum)
    hosts, alone = [make(shardings=[share] * len(rows)) for share in shares(count)], make()
    assert {host.fingerprint() for host in hosts} == {alone.fingerprint()}
    for step in range(500):
        index, whole = alone[step]
        own = [host[step] for host in hosts]
        assert {of_host for of_host, _ in own} == {index}
        joined = jax.tree.map(lambda *parts: np.concatenate(parts), *(batch for _, batch in own))
        assert same(joined, whole)


def test_captions_are_dropped_by_position_at_the_rate(
    steps: Steps, clip_set: ClipSet, numbers: SimpleNamespace
) -> None:
    texts = np.concatenate([steps[step][1].text for step in range(300)])
    rate = np.mean(texts[:, 0] == 1)  # the end mark alone
    assert abs(rate - 0.25) < 4 * np.sqrt(0.25 * 0.75 / len(texts))
    kept = dataclasses.replace(numbers.config, caption_dropout=0.0)
    whole = Steps(clip_set, kept, ROWS, 7)
    assert all(np.all(whole[step][1].text[:, 0] != 1) for step in range(20))


def test_seeds_and_epochs_do_not_overlap(clip_set: ClipSet, numbers: SimpleNamespace) -> None:
    def epochs(seed: int) -> list[tuple[int, ...]]:
        steps = Steps(clip_set, numbers.config, ROWS, seed, buckets=(0,))
        stream = {}
        for _, batch in (steps[step] for step in range(BLOCK_STEPS)):
            stream.update(zip(batch.example_id.tolist(), numbers_in(batch), strict=True))
        size = numbers.sizes[0]
        return [tuple(stream[epoch * size + i] for i in range(size)) for epoch in range(5)]

    assert len({epoch for seed in (1, 2, 3) for epoch in epochs(seed)}) == 15


@pytest.mark.parametrize("stop", [0, 1, 13])
def test_a_resumed_stream_goes_on_exactly(steps: Steps, stop: int) -> None:
    first, second = Batches(steps), Batches(steps)
    for _ in range(stop):
        next(first)
    state = json.loads(json.dumps(first.state()))
    first.close()
    next(second)  # a stream that is somewhere else
    second.restore(state)
    for step in range(stop, stop + 20):
        index, batch = next(second)
        assert index == steps[step][0]
        assert same(batch, steps[step][1])
    assert second.state()["step"] == stop + 20
    second.close()


def test_any_step_is_reached_at_once(steps: Steps) -> None:
    batches = Batches(steps, start_step=10**9)
    index, batch = next(batches)
    assert index == steps[10**9][0]
    assert same(batch, steps[10**9][1])
    batches.close()


@pytest.mark.parametrize("change", ["seed", "batch_clips", "config", "buckets"])
def test_a_state_of_another_stream_is_refused(
    clip_set: ClipSet, numbers: SimpleNamespace, steps: Steps, change: str
) -> None:
    arguments = {"batch_clips": ROWS, "seed": 7, "config": numbers.config, "buckets": None}
    arguments[change] = {
        "batch_clips": (8, 4, 4, 4),
        "seed": 8,
        "config": dataclasses.replace(numbers.config, caption_dropout=0.1),
        "buckets": (0, 1),
    }[change]
    other = Batches(Steps(clip_set, **arguments))
    with pytest.raises(DataError, match="use the same set, seed and data config"):
        other.restore(Batches(steps).state())


def test_a_state_of_another_set_is_refused(
    steps: Steps, numbers: SimpleNamespace, tmp_path: Path
) -> None:
    clips = list(numbers.clips())
    clips[0] = dataclasses.replace(clips[0], caption="another caption")
    build_set(clips, tmp_path / "other", numbers.config)
    other = Batches(Steps(ClipSet(tmp_path / "other"), numbers.config, ROWS, 7))
    with pytest.raises(DataError, match="use the same set"):
        other.restore(Batches(steps).state())


def test_a_curriculum_is_of_the_buckets_chosen_and_resumes(
    clip_set: ClipSet, numbers: SimpleNamespace
) -> None:
    curriculum = (Period(0, (("1x8x8", 0.0), ("5x8x16", 0.0))), Period(17, (("1x8x8", 2.0),)))
    make = functools.partial(Steps, clip_set, numbers.config, ROWS, 7, curriculum=curriculum)
    steps = make()
    assert {steps[step][0] for step in range(17)} == {1, 3}
    assert {steps[step][0] for step in range(17, 60)} == {0, 1, 3}
    assert {make(buckets=(0, 3))[step][0] for step in range(17)} == {3}
    state = {"step": 15, "fingerprint": steps.fingerprint()}
    batches = Batches(steps)
    batches.restore(state)
    for step in range(15, 25):  # over the change
        index, batch = next(batches)
        assert index == steps[step][0]
        assert same(batch, steps[step][1])
    batches.close()
    with pytest.raises(DataError, match="use the same set, seed and data config"):
        Batches(Steps(clip_set, numbers.config, ROWS, 7)).restore(state)
    with pytest.raises(
        ConfigError, match="from step 0 on every bucket that is drawn from has weight 0"
    ):
        make(buckets=(0, 2))


def test_some_of_the_buckets_may_be_chosen(clip_set: ClipSet, numbers: SimpleNamespace) -> None:
    steps = Steps(clip_set, numbers.config, ROWS, 7, buckets=(1, 3))
    assert {steps[step][0] for step in range(30)} == {1, 3}


def test_a_bucket_that_the_set_has_no_clip_for_is_named(
    clip_set: ClipSet, numbers: SimpleNamespace
) -> None:
    config = dataclasses.replace(numbers.config, buckets=(Bucket(1, 8, 8), Bucket(9, 64, 64)))
    with pytest.raises(DataError, match="has no clip for bucket 9x64x64"):
        Steps(clip_set, config, (8, 8), 7)
    assert clip_set.filled_buckets(config) == (0,)
    assert Steps(clip_set, config, (8, 8), 7, buckets=(0,))[0][0] == 0


def test_rows_come_from_the_sharding() -> None:
    devices = np.asarray(jax.devices()).reshape(4, 2)
    mesh = Mesh(devices, ("fsdp", "tensor"))
    for spec in (PartitionSpec("fsdp"), PartitionSpec()):  # this process owns all devices
        assert own_rows(NamedSharding(mesh, spec), 8) == list(range(8))


def test_each_process_gets_the_rows_of_its_devices_also_where_two_share_them() -> None:
    # What jax answers on one of four hosts of two devices: hosts 2 and 3 hold the upper half.
    class Sharding:
        def addressable_devices_indices_map(self, shape: tuple[int]) -> dict[int, tuple[slice]]:
            return {4: (slice(4, 6),), 5: (slice(6, 8),)}

    class Torn(Sharding):
        def addressable_devices_indices_map(self, shape: tuple[int]) -> dict[int, tuple[slice]]:
            return {4: (slice(0, 2),), 5: (slice(6, 8),)}

    assert own_rows(Sharding(), 8) == [4, 5, 6, 7]
    assert own_rows(Torn(), 8) == [0, 1, 6, 7]


def test_reading_never_imports_tensorflow(clip_set: ClipSet) -> None:
    script = f"""
import sys
from sora_jax.data.inspect import buckets_of
from sora_jax.data.buckets import DataConfig, ShapeClass
from sora_jax.data.pipeline import Batches, Steps
from sora_jax.data.sources import ClipSet
clips = ClipSet({str(clip_set.directory)!r})
config = DataConfig(tuple(buckets_of(clips)), (ShapeClass(1, 1),))
batches = Batches(Steps(clips, config, [2] * len(config.buckets), 0))
next(batches), batches.close()
print("tensorflow" in sys.modules)
"""
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", script]
    run = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    assert run.stdout.strip() == "False"
