"""Opening a set: only finished and undamaged ones, and reads from many threads."""

import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from sora_jax.data import sources
from sora_jax.data.buckets import Bucket
from sora_jax.data.schema import DataError
from sora_jax.data.sources import ClipSet


def flip_a_byte(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_directory_without_a_manifest_is_no_set(own_set: Path, tmp_path: Path) -> None:
    (own_set / "manifest.json").unlink()
    with pytest.raises(DataError, match=r"has no manifest\.json: not a set, or never finished"):
        ClipSet(own_set)
    with pytest.raises(DataError, match="has no manifest"):
        ClipSet(tmp_path / "nowhere")


def test_a_shard_whose_hash_differs_is_named(own_set: Path) -> None:
    flip_a_byte(own_set / "sora-5x8x8.array_record-00001")
    with pytest.raises(DataError, match="sora-5x8x8.array_record-00001 does not have the manifest"):
        ClipSet(own_set)


def test_a_large_set_is_hashed_only_when_asked(
    own_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flip_a_byte(own_set / "sora-5x8x8.array_record-00001")
    monkeypatch.setattr(sources, "HASH_ON_OPEN_BYTES", 0)
    clips = ClipSet(own_set)
    with pytest.raises(DataError, match="sora-5x8x8.array_record-00001"):
        clips.verify()


@pytest.mark.parametrize("file", ["sora-5x8x8.array_record-00000", "tokenizer.model"])
def test_a_missing_or_short_file_is_named(
    own_set: Path, file: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "HASH_ON_OPEN_BYTES", 0)
    data = (own_set / file).read_bytes()
    (own_set / file).write_bytes(data[:-1])
    with pytest.raises(DataError, match=f"{file} has {len(data) - 1} bytes, the manifest says"):
        ClipSet(own_set)
    (own_set / file).unlink()
    with pytest.raises(DataError, match=f"{file} is in the manifest but not on disk"):
        ClipSet(own_set)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"schema_version": 99}, "has schema version 99, this program reads 1"),
        ({"tokenizer": {"wrong": 1}}, "cannot be read"),
        ({"shards": 3}, "cannot be read"),
    ],
)
def test_a_manifest_of_another_kind_is_refused(
    own_set: Path, change: dict[str, object], sentence: str
) -> None:
    path = own_set / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(DataError, match=sentence):
        ClipSet(own_set)
    path.write_text("{")
    with pytest.raises(DataError, match="cannot be read"):
        ClipSet(own_set)


def test_threads_and_few_open_files_read_the_same(
    clip_set: ClipSet, numbers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_OPEN_SHARDS", 2)
    source = pickle.loads(pickle.dumps(clip_set.source(numbers.config.buckets[0])))
    order = [(7 * i) % len(source) for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        ids = [record.clip_id for record in pool.map(source.__getitem__, order)]
    assert ids == [f"1x8x8-{i}" for i in order]
    assert len(source._open) <= 2
    with pytest.raises(IndexError):
        source[len(source)]


def test_a_bucket_without_records_is_empty(clip_set: ClipSet, numbers: SimpleNamespace) -> None:
    assert len(clip_set.source(Bucket(1, 64, 64))) == 0
    assert clip_set.filled_buckets(numbers.config) == (0, 1, 2, 3)


def test_a_record_that_cannot_be_read_names_its_shard(
    own_set: Path, numbers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "HASH_ON_OPEN_BYTES", 0)
    shard = own_set / "sora-1x8x8.array_record-00000"
    shard.write_bytes(bytes(shard.stat().st_size))
    source = ClipSet(own_set).source(numbers.config.buckets[0])
    with pytest.raises(DataError, match="sora-1x8x8.array_record-00000"):
        source[0]
    assert source[9].clip_id == "1x8x8-9"


def test_several_records_at_once_are_those_one_by_one(
    own_set: Path, numbers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "HASH_ON_OPEN_BYTES", 0)
    shard = own_set / "sora-1x8x8.array_record-00001"
    shard.write_bytes(bytes(shard.stat().st_size))
    source = ClipSet(own_set).source(numbers.config.buckets[0])
    indices = [20, 9, 3, 20, 39, 15]
    records, clips = source.records(indices), source.clips(indices)
    for index, record, clip in zip(indices, records, clips, strict=True):
        if index in (9, 15):
            for found in (record, clip):
                assert isinstance(found, DataError)
                assert f"{shard}: record {index - 8} cannot be read" in str(found)
        else:
            assert record == source[index] == clip[0]
            assert (clip[1] == source.clip(index)[1]).all()
    with pytest.raises(IndexError):
        source.records([0, -1])


def test_a_shard_that_comes_back_is_read_as_if_nothing_had_been(
    own_set: Path, numbers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = ClipSet(own_set).source(numbers.config.buckets[0])
    expected = source.records(range(40))
    shard, away = own_set / "sora-1x8x8.array_record-00001", own_set / "away"
    waits = []

    def sleep(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 2:
            away.rename(shard)

    monkeypatch.setattr(sources.time, "sleep", sleep)
    source = ClipSet(own_set).source(numbers.config.buckets[0])
    shard.rename(away)
    assert source.records(range(40)) == expected
    assert waits == list(sources.RETRY_SECONDS[:2])


def test_a_reader_that_fails_is_opened_again(
    own_set: Path, numbers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Failing:
        def read(self, *_: int) -> list[bytes]:
            raise RuntimeError("pread() failed: Input/output error")

    source = ClipSet(own_set).source(numbers.config.buckets[0])
    expected = source.records(range(16))
    monkeypatch.setattr(sources.time, "sleep", lambda _: pytest.fail("the file can be read"))
    source._open[1] = Failing()
    assert source.records(range(16)) == expected


@pytest.mark.parametrize("damage", ["missing", "short", "not readable"])
def test_a_shard_that_stays_away_is_no_bad_record(
    own_set: Path, numbers: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(sources.time, "sleep", waits.append)
    source = ClipSet(own_set).source(numbers.config.buckets[0])
    shard = own_set / "sora-1x8x8.array_record-00001"
    if damage == "short":
        shard.write_bytes(shard.read_bytes()[:-1000])
    elif damage == "missing":
        shard.unlink()
    else:
        shard.write_bytes(bytes(shard.stat().st_size))

        def fails(path: Path) -> None:
            raise OSError(5, "Input/output error", str(path))

        monkeypatch.setattr(sources, "read_through", fails)
    with pytest.raises(DataError, match=rf"^{shard} cannot be read on this host: "):
        source.records([3, 9])
    assert waits == list(sources.RETRY_SECONDS)
    assert source.records([3])[0].clip_id == "1x8x8-3"
