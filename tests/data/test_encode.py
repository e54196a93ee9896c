"""Sets of latents: exact, whole, the same from any number of hosts and after any interruption."""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sora_jax.cli import data as data_command
from sora_jax.data import media, sources
from sora_jax.data.bad_records import most_bad
from sora_jax.data.captions import BFLOAT16, TextEmbedder
from sora_jax.data.encode import BucketWork, LatentSet
from sora_jax.data.inspect import shown_clips
from sora_jax.data.latents import LatentRecord, latent_features
from sora_jax.data.once import Stripes
from sora_jax.data.pipeline import Steps
from sora_jax.data.schema import DataError, Encoding, Record, stored_fields
from sora_jax.data.sources import ClipSet
from sora_jax.data.summary import summarise, summary_text

ROWS, LENGTH = 4, 3  # of a batch; records in a shard
ENDS = (3, 6, 9, 10, 13, 16, 17, 20)  # batches until the end of each piece of the set
HOSTS = ([0, 1, 2, 3],), ([0, 1], [2, 3]), ([2], [0, 1, 3])


class Stop(Exception):
    """Stands for the end of a process."""


class Words:
    """Embeds a caption as the lengths of its words."""

    id, width = "words-1", 1

    def __call__(self, captions: Sequence[str]) -> list[np.ndarray]:
        return [np.array([[len(word)] for word in caption.split()]) for caption in captions]


def moments(video: np.ndarray, off: float = 0.0) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Two channels that tell the clip and the cell; `off` by what devices may differ in."""
    cells = video[:, ::4, ::4, ::4, :2].astype(np.float32) + 1 / 3 + off
    cells = (cells + np.arange(cells[0].size).reshape(cells[0].shape) / 7).astype(BFLOAT16)
    return list(cells), list(-cells)


def job(
    clips: ClipSet, config: Any, output: Path, rows: Sequence[int], **changes: Any
) -> LatentSet:
    """The job of a host that has `rows`. `stop_after`: batches, then Stop. `off`: as of moments."""
    left = changes.get("stop_after", 10**9)

    def encode(video: np.ndarray) -> Callable[[], Any]:
        nonlocal left
        left -= 1
        if left < 0:
            raise Stop
        return lambda: moments(video, changes.get("off", 0.0))

    vae = changes.get("vae_id", "a")
    embed = changes.get("embed")
    text = {"text_id": embed.id, "text_width": embed.width} if embed else {}
    stripes = [
        Stripes(bucket, clips.manifest.records(bucket.name), ROWS, LENGTH)
        for bucket in config.buckets
    ]
    # Row 1 is held by two hosts and written by one.
    reads = sorted({*rows, 1})
    work = [BucketWork(each, reads, rows, encode) for each in stripes]
    return LatentSet(clips, output, Encoding(clips.manifest.id, vae, 2, **text), work)


def encode(
    clips: ClipSet,
    config: Any,
    output: Path,
    hosts: Sequence[Sequence[int]] = ([0, 1, 2, 3],),
    embed: TextEmbedder | None = None,
) -> ClipSet:
    jobs = [job(clips, config, output, rows, embed=embed) for rows in hosts]
    missing = [each.missing() for each in jobs]
    for host, each in enumerate(jobs):
        each.write(missing[host], host, embed)
    jobs[0].finish(embed)
    return ClipSet(output)


def hashes(directory: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(directory.iterdir())
    }


@pytest.fixture(scope="module")
def latents(
    clip_set: ClipSet, numbers: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory
) -> ClipSet:
    return encode(clip_set, numbers.config, tmp_path_factory.mktemp("latents") / "set")


def test_every_record_is_there_once_in_its_place_and_exact(
    clip_set: ClipSet, latents: ClipSet, numbers: SimpleNamespace
) -> None:
    for bucket, size in zip(numbers.config.buckets, numbers.sizes, strict=True):
        theirs, ours = clip_set.source(bucket), latents.source(bucket)
        assert len(ours) == size
        for index in range(size):
            record, video = theirs.clip(index)
            stored, mean = ours.clip(index)
            for name in ("clip_id", "asset_id", "caption", "frames", "height", "width", "fps"):
                assert getattr(stored, name) == getattr(record, name)
            [expected], _ = moments(video[None])
            assert mean.dtype == BFLOAT16
            np.testing.assert_array_equal(mean, expected)
            np.testing.assert_array_equal(stored.log_variance, -expected)
    assert latents.manifest.latents == Encoding(clip_set.manifest.id, "a", 2)
    assert latents.tokenizer.model == clip_set.tokenizer.model


def test_a_record_comes_back_as_tfds_reads_it(
    clip_set: ClipSet, numbers: SimpleNamespace, tmp_path: Path
) -> None:
    latents = encode(clip_set, numbers.config, tmp_path / "set", embed=Words())
    assert latents.manifest.latents is not None
    assert latents.manifest.latents.text_id == "words-1"
    source = latents.source(numbers.config.buckets[3])
    serialized = source._read(8)
    ours, theirs = source[8], latent_features(True).deserialize_example_np(serialized)
    assert ours.caption == "clip number 8"
    assert ours.text is not None
    assert ours.text.tolist() == [[4], [6], [1]]
    for name, value in stored_fields(ours).items():
        found = theirs[name].decode() if isinstance(value, str) else theirs[name]
        np.testing.assert_array_equal(found, value)
    with pytest.raises(ValueError, match="not a record of schema 1"):
        LatentRecord.parse(serialized[:-3])


@pytest.mark.parametrize("hosts", HOSTS)
def test_any_number_of_hosts_makes_the_same_files(
    clip_set: ClipSet,
    latents: ClipSet,
    numbers: SimpleNamespace,
    tmp_path: Path,
    hosts: Sequence[Sequence[int]],
) -> None:
    made = encode(clip_set, numbers.config, tmp_path / "set", hosts)
    assert made.manifest.id == latents.manifest.id
    assert hashes(tmp_path / "set") == hashes(latents.directory)


@pytest.mark.parametrize("stop_after", [0, 1, 4, 7, 14])
def test_a_job_that_was_stopped_goes_on_to_the_same_files(
    clip_set: ClipSet,
    latents: ClipSet,
    numbers: SimpleNamespace,
    tmp_path: Path,
    stop_after: int,
) -> None:
    output = tmp_path / "set"
    # Of two hosts the first is stopped, after the other has gone on by itself for as long.
    jobs = [
        job(clip_set, numbers.config, output, rows, stop_after=batches)
        for rows, batches in (([2, 3], stop_after + 3), ([0, 1], stop_after))
    ]
    missing = [each.missing() for each in jobs]
    assert len(missing[0]) == len(ENDS)
    for host, each in enumerate(jobs):
        with pytest.raises(Stop):
            each.write(missing[host], host, None)
    with pytest.raises(DataError, match="has no manifest"):
        ClipSet(output)
    before = {path: path.stat().st_mtime_ns for path in output.glob("latents*[0-9]")}
    left = job(clip_set, numbers.config, output, [0, 1, 2, 3]).missing()
    # The last batch that was encoded is still on its way when the job stops.
    assert left == missing[0][sum(end < stop_after for end in ENDS) :]
    encode(clip_set, numbers.config, output)
    assert hashes(output) == hashes(latents.directory)
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())


def test_a_shard_that_is_gone_is_made_again(
    clip_set: ClipSet, latents: ClipSet, numbers: SimpleNamespace, tmp_path: Path
) -> None:
    output = tmp_path / "set"
    started = job(clip_set, numbers.config, output, [0, 1, 2, 3])
    started.write(started.missing(), 0, None)
    (output / "latents-5x8x8.array_record-00002-00000").unlink()
    again = job(clip_set, numbers.config, output, [0, 1, 2, 3])
    assert again.missing() == [(1, 0)]
    with pytest.raises(DataError, match="lacks latents-5x8x8.array_record-00002-00000: start the"):
        again.finish(None)
    encode(clip_set, numbers.config, output)
    assert hashes(output) == hashes(latents.directory)
    assert job(clip_set, numbers.config, output, [0]).is_finished


@pytest.mark.parametrize("host", [0, 1])
def test_a_shard_that_another_number_of_hosts_makes_again_has_its_new_hash(
    clip_set: ClipSet, numbers: SimpleNamespace, tmp_path: Path, host: int
) -> None:
    output = tmp_path / "set"
    jobs = [job(clip_set, numbers.config, output, rows) for rows in ([0, 1], [2, 3])]
    missing = [each.missing() for each in jobs]
    for number, each in enumerate(jobs):
        each.write(missing[number], number, None)
    shards = [output / f"latents-5x8x8.array_record-{row:05d}-00000" for row in (0, 2)]
    before = [shard.read_bytes() for shard in shards]  # one of each host
    for shard in shards:
        shard.unlink()
    alone = job(clip_set, numbers.config, output, [0, 1, 2, 3], off=1.0)
    assert alone.missing() == [(1, 0)]
    alone.write([(1, 0)], host, None)
    after = [shard.read_bytes() for shard in shards]
    assert after[0] != before[0]
    assert list(map(len, after)) == list(map(len, before))  # so that only hashes tell
    alone.finish(None)
    ClipSet(output)  # checks every hash
    assert not list(output.glob("progress-*"))


BAD = ("1x8x8-3", "1x8x8-39", "5x8x16-0", "5x8x16-1", "5x8x16-2")  # all of a bucket


@pytest.fixture
def damage(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Has the media of the clips of these ids fail to decode."""

    def apply(*clip_ids: str) -> None:
        def decode(record: Record) -> np.ndarray:
            if record.clip_id in clip_ids:
                raise ValueError("it is damaged")
            return media.decode_record(record)

        monkeypatch.setattr(sources, "decode_record", decode)

    return apply


@pytest.mark.parametrize("hosts", HOSTS)
def test_bad_records_are_left_out_and_accounted_for(
    clip_set: ClipSet,
    numbers: SimpleNamespace,
    tmp_path: Path,
    damage: Callable[..., None],
    hosts: Sequence[Sequence[int]],
    capsys: pytest.CaptureFixture[str],
) -> None:
    damage(*BAD)
    made = encode(clip_set, numbers.config, tmp_path / "set", hosts)
    told = capsys.readouterr().out.splitlines()
    assert sorted(line.split()[2] for line in told) == sorted(BAD)
    assert all(line.endswith("it is damaged; it is left out") for line in told)
    for bucket, size in zip(numbers.config.buckets, numbers.sizes, strict=True):
        ids = [f"{bucket.name}-{n}" for n in range(size) if f"{bucket.name}-{n}" not in BAD]
        source = made.source(bucket)
        assert [source[index].clip_id for index in range(len(source))] == ids
        assert made.manifest.records(bucket.name) == len(ids)
    ledger = (tmp_path / "set" / "ledger.jsonl").read_text().splitlines()
    assert ledger[: -len(BAD)] == (clip_set.directory / "ledger.jsonl").read_text().splitlines()
    assert json.loads(ledger[-4]) == {
        "source": "record 39 of 1x8x8",
        "outcome": "dropped",
        "reason": "bad record",
        "detail": "1x8x8-39",
    }
    counts = dict(made.manifest.ledger_counts)
    assert counts.pop("dropped") == counts.pop("dropped: bad record") == len(BAD)
    assert counts == clip_set.manifest.ledger_counts
    again = encode(clip_set, numbers.config, tmp_path / "again")
    assert hashes(again.directory) == hashes(made.directory)


def test_bad_records_stay_left_out_where_a_job_goes_on(
    clip_set: ClipSet, numbers: SimpleNamespace, tmp_path: Path, damage: Callable[..., None]
) -> None:
    damage(*BAD)
    expected = encode(clip_set, numbers.config, tmp_path / "expected")
    for stop_after in (2, 5, 13):
        output = tmp_path / str(stop_after)
        stopped = job(clip_set, numbers.config, output, [0, 1, 2, 3], stop_after=stop_after)
        with pytest.raises(Stop):
            stopped.write(stopped.missing(), 0, None)
        encode(clip_set, numbers.config, output, ([0, 1], [2, 3]))
        assert hashes(output) == hashes(expected.directory)


def test_a_record_that_is_none_is_left_out_without_a_name(
    clip_set: ClipSet, numbers: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def parse(stored: bytes) -> Record:
        if b"5x8x8-7" in stored:
            raise ValueError("not a record")
        return parsed(stored)

    parsed = Record.parse
    monkeypatch.setattr(Record, "parse", parse)
    made = encode(clip_set, numbers.config, tmp_path / "set")
    assert made.manifest.records("5x8x8") == 20
    line = json.loads((tmp_path / "set" / "ledger.jsonl").read_text().splitlines()[-1])
    assert line == {"source": "record 7 of 5x8x8", "outcome": "dropped", "reason": "bad record"}


@pytest.mark.parametrize("hosts", HOSTS)
def test_too_many_bad_records_stop_a_job_of_any_number_of_hosts(
    clip_set: ClipSet,
    numbers: SimpleNamespace,
    tmp_path: Path,
    damage: Callable[..., None],
    hosts: Sequence[Sequence[int]],
) -> None:
    ids = [f"1x8x8-{number}" for number in range(0, 40, 4)]
    damage(*ids)
    assert encode(clip_set, numbers.config, tmp_path / "set", hosts).manifest.records("1x8x8") == 30
    damage(*ids, "9x16x8-8")
    sentence = "^11 of 73 records of .* cannot be used, too many to leave out: find damaged files"
    with pytest.raises(DataError, match=sentence):
        encode(clip_set, numbers.config, tmp_path / "more", hosts)
    if len(hosts) > 1:  # each has found fewer; together they know
        found = job(clip_set, numbers.config, tmp_path / "more", hosts[1])
        with pytest.raises(DataError, match=sentence):
            found.check()
    assert not (tmp_path / "more" / "manifest.json").exists()
    assert [most_bad(records) for records in (1, 73, 1000, 5000)] == [10, 10, 10, 50]


def test_what_else_is_in_the_directory_is_refused(
    clip_set: ClipSet, latents: ClipSet, numbers: SimpleNamespace, tmp_path: Path
) -> None:
    def start(output: Path, **changes: Any) -> LatentSet:
        return job(clip_set, numbers.config, output, [0, 1, 2, 3], **changes)

    with pytest.raises(DataError, match="holds clips, this job makes latents by autoencoder a"):
        start(clip_set.directory)
    with pytest.raises(DataError, match="holds latents by autoencoder a of set .*, this job makes"):
        start(latents.directory, vae_id="b")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="is not empty"):
        start(tmp_path)
    output = tmp_path / "set"
    with pytest.raises(Stop):
        (stopped := start(output, stop_after=5)).write(stopped.missing(), 0, None)
    with pytest.raises(DataError, match="holds an unfinished set of latents by autoencoder a"):
        start(output, vae_id="b").missing()


def test_the_loader_gives_encoded_batches_of_the_same_clips(
    clip_set: ClipSet, latents: ClipSet, numbers: SimpleNamespace
) -> None:
    def tokens(mean: np.ndarray) -> np.ndarray:
        return mean.reshape(len(mean), -1, mean.shape[-1]).astype(np.float32)

    rows = [4] * 4
    ours = Steps(latents, numbers.config, rows, 5, tokens=tokens)
    theirs = Steps(clip_set, numbers.config, rows, 5)
    for step in range(30):
        bucket, batch = ours[step]
        expected_bucket, clips = theirs[step]
        assert bucket == expected_bucket
        expected = np.stack(moments(clips.video)[0])
        np.testing.assert_array_equal(batch.latents, tokens(expected))
        for name in ("text", "fps", "example_id"):
            np.testing.assert_array_equal(getattr(batch, name), getattr(clips, name))
    with pytest.raises(DataError, match="this stage of training needs the clips themselves"):
        Steps(latents, numbers.config, rows, 5)


def test_a_set_of_latents_is_verified_and_shown(
    latents: ClipSet, capsys: pytest.CaptureFixture[str]
) -> None:
    data_command.main(["sora data", "verify", str(latents.directory)])
    assert "files are as the manifest says" in capsys.readouterr().out
    shown = summary_text(latents, summarise(latents))
    assert "latents by autoencoder a of set" in shown
    assert shown.splitlines()[1].split()[:2] == ["1x8x8", "40"]
    assert not shown_clips(latents)


def test_a_set_of_clips_keeps_its_id(clip_set: ClipSet) -> None:
    manifest = clip_set.manifest
    content = hashlib.sha256((clip_set.directory / "manifest.json").read_bytes()).hexdigest()
    assert content == manifest.id
    assert "latents" not in manifest.text()
    encoded = dataclasses.replace(manifest, latents=Encoding("a", "b", 2))
    assert encoded.id != manifest.id
