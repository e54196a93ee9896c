"""From a judged table to sets: the same bytes from any run, nothing left of one that failed."""

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image

from data_pipelines import export as exporting
from data_pipelines import table
from data_pipelines.analyse import analyse
from data_pipelines.export import TRAIN, VALIDATION, export, part_of
from data_pipelines.judge import judge
from data_pipelines.rules import RULES
from data_pipelines.scores import SCORES
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.data.schema import LEDGER_FILE, DataError
from sora_jax.data.sources import ClipSet
from sora_jax.errors import ConfigError
from tests.data_pipelines.conftest import write_video

CONFIG = DataConfig(
    buckets=(Bucket(1, 32, 48), Bucket(9, 32, 48), Bucket(17, 32, 48)),
    shape_classes=(ShapeClass(8, 512),),
)
BAR = 8
LONGEST = 17
# The footage here is small, and made of squares.
LENIENT = [rule for rule in RULES if rule.name not in ("too small", "blocky")]


def moving(seed: int, frames: int) -> Iterator[np.ndarray]:
    """A texture that drifts under black bars."""
    coarse = np.random.default_rng(seed).integers(40, 256, (4, 6, 3), np.uint8)
    texture = coarse.repeat(16, axis=0).repeat(16, axis=1)
    for frame in range(frames):
        yield np.pad(np.roll(texture, 2 * frame, axis=1), ((BAR, BAR), (0, 0), (0, 0)))


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("footage")
    for seed, frames in enumerate((30, 40, 12, 20, 5)):
        write_video(folder / f"{seed}.mp4", moving(seed, frames), 10, quality=10)
    for seed in range(10, 14):
        Image.fromarray(next(moving(seed, 1))).save(folder / f"{seed}.png")
    (folder / "broken.mp4").write_bytes(b"no film")
    for path in sorted(folder.iterdir()):
        path.with_suffix(".txt").write_text(f"a texture, number {path.stem}")
    kinds = {"captions": {"long": "a texture that  drifts, 1"}}
    (folder / "1.json").write_text(json.dumps(kinds))
    return folder


@pytest.fixture(scope="module")
def judged(footage: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("tables")
    analyse([f"folder:{footage}"], str(folder / "measured"))
    judge(str(folder / "measured"), str(folder / "judged"), LENIENT)
    return str(folder / "judged")


@pytest.fixture(scope="module")
def sets(judged: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("sets") / "sets"
    export(judged, output, CONFIG, validation=0.4)
    return output


def ids(sets: Path) -> dict[str, str]:
    """The hash over all contents of each set."""
    return {part.name: ClipSet(part).manifest.id for part in sorted(sets.iterdir())}


def test_every_clip_is_in_the_set_or_in_its_ledger(sets: Path, judged: str) -> None:
    lines = [
        json.loads(line)
        for part in (TRAIN, VALIDATION)
        for line in (sets / part / LEDGER_FILE).read_text().splitlines()
    ]
    assert {line["source"] for line in lines} >= {row["name"] for row in table.rows(judged)}
    stored = {
        record.clip_id
        for part in (TRAIN, VALIDATION)
        for bucket in CONFIG.buckets
        for source in [ClipSet(sets / part).source(bucket)]
        for record in (source[index] for index in range(len(source)))
    }
    assert stored == {line["clip"] for line in lines if line["outcome"] == "emitted"}
    assert {line["source"] for line in lines if line["outcome"] == "dropped"} == {"broken.mp4"}


def test_every_clip_has_the_scores_of_the_shot_that_it_is_of(sets: Path, judged: str) -> None:
    names = [table.SCORE + score.name for score in SCORES]
    of_sources = {row["name"]: row for row in table.rows(judged)}  # each here is one shot
    seen = []
    for part in (TRAIN, VALIDATION):
        for line in map(json.loads, (sets / part / LEDGER_FILE).read_text().splitlines()):
            if line["outcome"] == "emitted":
                row = of_sources[line["source"]]
                expected = {name.removeprefix(table.SCORE): row[name] for name in names}
                assert line["scores"] == pytest.approx(expected, rel=1e-5)
                assert f"{line['frames']}x32x48" == line["bucket"]
                assert line["fps"] == (row["fps"] or 1.0)
                seen.append(line["scores"]["sharpness"])
            else:
                assert "scores" not in line
    assert len(set(seen)) == len([row for row in of_sources.values() if row["keep"]])


def test_clips_of_an_asset_stay_together(sets: Path) -> None:
    assets = {}
    for part in (TRAIN, VALIDATION):
        clips = ClipSet(sets / part)
        sources = [clips.source(bucket) for bucket in CONFIG.buckets]
        assets[part] = {s[i].asset_id for s in sources for i in range(len(s))}
        assert all(part_of(asset, 0.4) == part for asset in assets[part])
    assert assets[TRAIN]
    assert assets[VALIDATION]
    assert not assets[TRAIN] & assets[VALIDATION]


def test_what_is_stored_is_the_footage_without_bars(sets: Path) -> None:
    for part in (TRAIN, VALIDATION):
        source = ClipSet(sets / part).source(CONFIG.buckets[2])
        for index in range(len(source)):
            record, video = source.clip(index)
            seed = int(record.caption.rpartition(" ")[2])
            start = int(record.clip_id.split("-")[1])
            frames = list(moving(seed, start + 17))[start:]
            whole = np.stack(frames)[:, BAR:-BAR]
            expected = whole.reshape(17, 32, 2, 48, 2, 3).mean((2, 4))
            error = np.abs(video[:, 2:-2, 2:-2] - expected[:, 2:-2, 2:-2]).mean()
            assert error < 8, (record.clip_id, error)  # of 255: what the file's codec lost


def test_two_runs_and_two_runners_write_the_same_bytes(
    sets: Path, judged: str, tmp_path: Path
) -> None:
    runner = PipelineOptions(["--runner=BundleBasedDirectRunner"])
    export(judged, tmp_path / "sets", CONFIG, validation=0.4, options=runner)
    assert ids(tmp_path / "sets") == ids(sets)


def test_a_bucket_fills_as_many_shards_as_its_bytes_need(judged: str, tmp_path: Path) -> None:
    export(judged, tmp_path / "sets", CONFIG, shard_bytes=500)
    manifest = ClipSet(tmp_path / "sets" / TRAIN).manifest
    assert max(map(len, manifest.shards.values())) > 1
    assert all(shard.records for shards in manifest.shards.values() for shard in shards)
    assert sum(map(manifest.records, manifest.shards)) == manifest.ledger_counts["emitted"]


def test_a_crash_leaves_nothing_and_the_next_run_is_as_any(
    sets: Path, judged: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for broken in ("file_entries", "finish_set"):

        def fails(*_: object, name: str = broken, **__: object) -> None:
            raise KeyboardInterrupt(name)

        with monkeypatch.context() as patch:
            patch.setattr(exporting, broken, fails)
            with pytest.raises(KeyboardInterrupt, match=broken):
                export(judged, tmp_path / "sets", CONFIG, validation=0.4)
        assert not list(tmp_path.iterdir())
    export(judged, tmp_path / "sets", CONFIG, validation=0.4)
    assert ids(tmp_path / "sets") == ids(sets)


def test_what_makes_no_sense_is_said_before_anything_is_decoded(
    judged: str, tmp_path: Path
) -> None:
    output = tmp_path / "sets"
    with pytest.raises(ConfigError, match="shards of 0 bytes hold nothing"):
        export(judged, output, CONFIG, shard_bytes=0)
    with pytest.raises(ConfigError, match="is no share of the assets"):
        export(judged, output, CONFIG, validation=1.0)
    with pytest.raises(table.TableError, match="not a table of clips"):
        export(str(tmp_path), output, CONFIG)
    large = DataConfig(buckets=(Bucket(1, 512, 512),), shape_classes=(ShapeClass(8, 512),))
    with pytest.raises(DataError, match="has no clip for a training set"):
        export(judged, output, large)
    assert not output.exists()


def test_a_file_that_changed_is_named(footage: Path, tmp_path: Path) -> None:
    Image.fromarray(next(moving(1, 1))).save(tmp_path / "one.png")
    (tmp_path / "one.txt").write_text("a texture")
    analyse([f"folder:{tmp_path}"], str(tmp_path / "measured"))
    judge(str(tmp_path / "measured"), str(tmp_path / "judged"), LENIENT)
    Image.fromarray(next(moving(2, 1))).save(tmp_path / "one.png")
    with pytest.raises(Exception, match="one.png has changed since it was analysed"):
        export(str(tmp_path / "judged"), tmp_path / "sets", CONFIG)
    assert not (tmp_path / "sets").exists()


def test_stored_clips_may_have_frames_to_spare_and_captions_of_several_kinds(
    judged: str, tmp_path: Path
) -> None:
    config = dataclasses.replace(CONFIG, spare_frames=6)
    [(_, manifest)] = export(judged, tmp_path / "sets", config).items()
    clips = ClipSet(tmp_path / "sets" / "train")
    records = [
        (bucket, record)
        for bucket in config.buckets
        for record in map(clips.source(bucket).__getitem__, range(manifest.records(bucket.name)))
    ]
    stored = {record.frames for bucket, record in records if bucket.frames == LONGEST}
    assert max(stored) == LONGEST + 6
    assert all(0 <= record.frames - bucket.frames <= 6 for bucket, record in records)
    told = {record.caption[-1]: dict(record.captions) for _, record in records}
    assert told.pop("1") == {"given": "a texture, number 1", "long": "a texture that drifts, 1"}
    assert not any(told.values())
