"""Building a set: equal bytes, all or nothing, and what TFDS and the manifest say of it."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sora_jax.data.build import SourceClip, build_set
from sora_jax.data.ledger import Ledger
from sora_jax.data.media import decode_record
from sora_jax.data.schema import DataError, Manifest, file_sha256
from sora_jax.data.sources import ClipSet


def contents(directory: Path) -> dict[str, str]:
    return {path.name: file_sha256(path) for path in sorted(directory.iterdir())}


def test_what_goes_in_comes_out(numbers: SimpleNamespace, clip_set: ClipSet) -> None:
    for bucket, size in zip(numbers.config.buckets, numbers.sizes, strict=True):
        source = clip_set.source(bucket)
        assert len(source) == size
        for number in range(size):
            record, original = source[number], numbers.clip(bucket, number)
            assert record.clip_id == original.clip_id
            assert record.caption == original.caption
            assert record.fps == original.fps
            assert np.array_equal(decode_record(record), original.video)
    assert len(clip_set.manifest.shards["1x8x8"]) == 5  # 40 records, 8 to a shard


def test_captions_may_be_of_any_script(numbers: SimpleNamespace, tmp_path: Path) -> None:
    bucket = numbers.config.buckets[0]
    captions = ["a café", "日本の夜", "кот"]
    build_set(
        (numbers.clip(bucket, i, caption=text) for i, text in enumerate(captions)),
        tmp_path / "set",
        numbers.config,
    )
    source = ClipSet(tmp_path / "set").source(bucket)
    assert [source[i].caption for i in range(3)] == captions


def test_building_twice_gives_the_same_bytes(numbers: SimpleNamespace, tmp_path: Path) -> None:
    for name in ("one", "two"):
        build_set(numbers.clips(), tmp_path / name, numbers.config)
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_tfds_reads_the_set_without_tensorflow(numbers: SimpleNamespace, own_set: Path) -> None:
    script = (
        "import sys, tensorflow_datasets as tfds\n"
        f"source = tfds.builder_from_directory({str(own_set)!r}).as_data_source(split='1x8x8')\n"
        "print(len(source), source[3]['clip_id'].decode(), 'tensorflow' in sys.modules)"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["40", "1x8x8-3", "False"]


def test_the_ledger_and_the_manifest_tell_everything(
    numbers: SimpleNamespace, tmp_path: Path
) -> None:
    ledger = Ledger()
    ledger.dropped("x.mp4", "truncated", "3 of 9 frames")
    bucket = numbers.config.buckets[0]
    changed = numbers.clip(bucket, 1, source="y.png", changes=("resized to 8x8",))
    long = numbers.clip(bucket, 2, caption="a " * 20)
    manifest = build_set([changed, long], tmp_path / "set", numbers.config, ledger)
    lines = [json.loads(line) for line in (tmp_path / "set/ledger.jsonl").read_text().splitlines()]
    assert [line["outcome"] for line in lines] == ["dropped", "emitted", "emitted", "note"]
    assert lines[1] == {
        "source": "y.png",
        "outcome": "emitted",
        "reason": "resized to 8x8",
        "clip": "1x8x8-1",
        "bucket": "1x8x8",
        "frames": 1,
        "fps": 8.0,
    }
    assert lines[3]["reason"] == "1 are longer than 12 tokens: cut"
    assert manifest.ledger_counts == {
        "dropped": 1,
        "dropped: truncated": 1,
        "emitted": 2,
        "emitted: changed": 1,
        "note": 1,
    }
    assert Manifest.load(tmp_path / "set") == manifest
    assert manifest.records("1x8x8") == 2
    assert manifest.records("5x8x8") == 0


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"video": np.zeros((2, 8, 8, 3), np.uint8)}, r"\(2, 8, 8, 3\): not a bucket of 1x8x8, "),
        ({"video": np.zeros((1, 8, 8, 3))}, "float64"),
        ({"clip_id": "1x8x8-0"}, "two clips have the id 1x8x8-0"),
        ({"caption": " "}, "clip 1x8x8-5 has an empty caption"),
        ({"fps": float("nan")}, "clip 1x8x8-5 has nan frames per second"),
    ],
)
def test_a_clip_that_does_not_belong_is_named_and_nothing_is_left(
    numbers: SimpleNamespace, tmp_path: Path, changes: dict[str, object], sentence: str
) -> None:
    bucket = numbers.config.buckets[0]
    wrong = [numbers.clip(bucket, 0), numbers.clip(bucket, 5, **changes)]
    with pytest.raises(DataError, match=sentence):
        build_set(wrong, tmp_path / "set", numbers.config)
    assert list(tmp_path.iterdir()) == []


def test_a_crash_leaves_nothing(numbers: SimpleNamespace, tmp_path: Path) -> None:
    def crashing() -> Iterator[SourceClip]:
        yield numbers.clip(numbers.config.buckets[0], 0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build_set(crashing(), tmp_path / "set", numbers.config)
    assert list(tmp_path.iterdir()) == []


def test_no_clips_and_a_full_directory_are_refused(
    numbers: SimpleNamespace, own_set: Path, tmp_path: Path
) -> None:
    before = contents(own_set)
    with pytest.raises(DataError, match="is not empty"):
        build_set(numbers.clips(), own_set, numbers.config)
    assert contents(own_set) == before
    ledger = Ledger()
    ledger.dropped("x.mp4", "truncated")
    with pytest.raises(DataError, match=r"no clip for .*other in the input \(1 dropped: truncated"):
        build_set([], tmp_path / "other", numbers.config, ledger)


@pytest.mark.parametrize("limit", [100, 30_000])
def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path: Path, limit: int) -> None:
    script = f"""
import resource
import numpy as np
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.data.build import SourceClip, build_set
from sora_jax.data.schema import DataError
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
config = DataConfig((Bucket(5, 16, 16),), (ShapeClass(1, 1),))
noise = np.random.default_rng(0)
clips = (
    SourceClip(str(i), "a", "noise", noise.integers(0, 256, (5, 16, 16, 3), np.uint8), 8.0)
    for i in range(40)
)
try:
    build_set(clips, {str(tmp_path / "set")!r}, config)
except DataError as error:
    print(error)
"""
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.startswith(f"no space left on the disk while writing {tmp_path / 'set'}")
    assert list(tmp_path.iterdir()) == []
