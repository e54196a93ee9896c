"""Bad records: the next one stands in, the same everywhere; they are counted, told, and limited."""

import collections
import dataclasses
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sora_jax.data import bad_records, media, sources
from sora_jax.data.bad_records import TRIES, BadRecords
from sora_jax.data.pipeline import Batches, Steps
from sora_jax.data.schema import DataError, Record
from sora_jax.data.sources import ClipSet

ROWS = (8, 4, 4, 2)
STEPS = 40  # fewer than 1,000 reads
Damage = Callable[..., None]


@pytest.fixture
def damage(monkeypatch: pytest.MonkeyPatch) -> Damage:
    """Has the media of the clips of these ids fail to decode; of all clips if there are none."""

    def apply(*clip_ids: str) -> None:
        def decode(record: Record) -> np.ndarray:
            bad = not clip_ids or record.clip_id in clip_ids
            media_bytes = b"damaged" if bad else record.media
            return media.decode_record(dataclasses.replace(record, media=media_bytes))

        monkeypatch.setattr(sources, "decode_record", decode)

    return apply


@pytest.fixture
def make_steps(clip_set: ClipSet, numbers: SimpleNamespace) -> Callable[..., Steps]:
    return functools.partial(Steps, clip_set, numbers.config, ROWS, 7)


def clips_by_position(steps: Steps) -> dict[tuple[int, int], tuple[int, str]]:
    """(Bucket, position) -> number of the clip, read from its pixels, and its caption, if kept."""
    found = {}
    for step in range(STEPS):
        bucket, batch = steps[step]
        pixels = np.asarray(batch.video)[:, 0, 0, 0, 0].tolist()
        captions = [steps.clips.tokenizer.decode(ids) for ids in batch.text]
        clips = zip(pixels, captions, strict=True)
        found |= {(bucket, p): c for p, c in zip(batch.example_id.tolist(), clips, strict=True)}
    return found


def test_the_next_record_of_the_stream_stands_in(
    make_steps: Callable[..., Steps], damage: Damage
) -> None:
    whole = clips_by_position(make_steps())
    damage("1x8x8-3", "1x8x8-4", "1x8x8-5", "5x8x8-7")
    steps = make_steps()
    bad = {(0, 3), (0, 4), (0, 5), (1, 7)}
    replaced = 0
    for (bucket, position), (number, caption) in clips_by_position(steps).items():
        expected = position
        while whole.get((bucket, expected), (None,))[0] in {n for b, n in bad if b == bucket}:
            expected += 1
        if (bucket, expected) in whole:  # else past what was read
            assert number == whole[bucket, expected][0]
            replaced += expected > position
        # The caption is that of the clip, and dropped where the position's would have been.
        if (bucket, position) in whole:
            assert caption == (whole[bucket, position][1] and f"clip number {number}")
    assert replaced > 10
    assert steps.bad_records.count >= replaced


def test_it_is_the_same_on_two_hosts_and_after_a_restart(
    make_steps: Callable[..., Steps], damage: Damage, shares: Any
) -> None:
    damage("1x8x8-3", "5x8x8-7", "9x16x8-2")
    whole = clips_by_position(make_steps())
    low, high = (clips_by_position(make_steps([half] * 4)) for half in shares(2))
    assert low | high == whole
    assert not low.keys() & high.keys()
    batches = Batches(make_steps(), start_step=20)
    for _ in range(10):
        bucket, batch = next(batches)
        pixels = np.asarray(batch.video)[:, 0, 0, 0, 0].tolist()
        assert pixels == [whole[bucket, position][0] for position in batch.example_id.tolist()]
    batches.close()


def test_a_damaged_shard_is_told_a_line_a_record(
    own_set: Path,
    numbers: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sources, "HASH_ON_OPEN_BYTES", 0)
    shard = own_set / "sora-1x8x8.array_record-00001"
    shard.write_bytes(bytes(shard.stat().st_size))
    steps = Steps(ClipSet(own_set), numbers.config, ROWS, 7, buckets=(0,))
    batches = Batches(steps)
    assert batches.metrics() == {}
    seen = {int(n) for _ in range(60) for n in next(batches)[1].video[:, 0, 0, 0, 0]}
    assert seen == set(range(40)) - set(range(8, 16))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len(set(lines)) == 8
    assert all(str(shard) in line and "the next clip of its bucket" in line for line in lines)
    count = batches.metrics()["bad_records"]
    assert 60 * 8 * 0.15 < count < 70 * 8 * 0.35  # 8 of 40, and those that stand in for others
    with pytest.raises(DataError, match=rf"of 1\d\d\d records read .* the last: {shard}: record"):
        collections.deque(batches, maxlen=0)  # reads until it fails
    batches.close()


def test_a_shard_that_cannot_be_read_stops_the_run_and_replaces_nothing(
    own_set: Path, numbers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "RETRY_SECONDS", ())
    steps = Steps(ClipSet(own_set), numbers.config, ROWS, 7, buckets=(0,))
    (own_set / "sora-1x8x8.array_record-00001").unlink()
    with pytest.raises(DataError, match="cannot be read on this host"):
        collections.deque(map(steps.__getitem__, range(5)), maxlen=0)  # an epoch
    assert steps.bad_records.count == 0


def test_a_clip_is_told_once(
    make_steps: Callable[..., Steps], damage: Damage, capsys: pytest.CaptureFixture[str]
) -> None:
    damage("1x8x8-3")
    steps = make_steps(buckets=(0,))
    for step in range(20):
        steps[step]
    assert steps.bad_records.count == 4  # in four epochs
    [line] = capsys.readouterr().out.splitlines()
    assert line.startswith("data: clip 1x8x8-3 in /")
    assert "sora-1x8x8.array_record-00000: png media cannot be decoded" in line


def test_many_in_a_row_name_the_last_and_its_shard(
    make_steps: Callable[..., Steps], damage: Damage
) -> None:
    damage()
    batches = Batches(make_steps())
    sentence = (
        rf"^{TRIES} records in a row .* clip \S+ in \S+array_record-\d+: .* cannot be decoded"
    )
    with pytest.raises(DataError, match=sentence):
        next(batches)
    batches.close()


def test_more_than_one_in_a_hundred_of_a_thousand_stop_the_run() -> None:
    def read(good: int, bad: int) -> BadRecords:
        records = BadRecords()
        records.read(good + bad)
        for _ in range(bad):
            records.bad(0, 5, DataError("clip a in shard b"))
        return records

    assert read(good=0, bad=999).count == 999
    assert read(good=1980, bad=20).count == 20
    with pytest.raises(DataError, match="^11 of 1000 records read .* the last: clip a in shard b"):
        read(good=0, bad=1000)
    with pytest.raises(DataError, match="^21 of 2001 records read cannot be used, more than 1%; "):
        read(good=1980, bad=21)


def test_threads_count_every_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bad_records, "MIN_READS", 10**9)
    records = BadRecords()

    def read(number: int) -> None:
        records.read(2)
        if number % 2:
            records.bad(0, number % 3, DataError("x"))

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(read, range(20_000)))
    assert records.count == 10_000
    assert records._reads == 40_000
