"""A set in numbers: hours are exact, every clip is counted once, and latents tell the same."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sora_jax.data.build import build_set
from sora_jax.data.schema import LEDGER_FILE, DataError, Encoding, FileEntry, Manifest
from sora_jax.data.sources import ClipSet
from sora_jax.data.summary import BINS, histogram, summarise, summary_text


def relined(directory: Path, change: Callable[[dict], dict | None], **manifest: object) -> ClipSet:
    """The set with every line of its ledger changed, and a manifest that agrees."""
    path = directory / LEDGER_FILE
    lines = [change(json.loads(line)) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines if line is not None))
    content = vars(Manifest.load(directory)) | {"ledger": FileEntry.of(directory, LEDGER_FILE)}
    Manifest(**(content | manifest)).save(directory)
    return ClipSet(directory)


def test_counts_and_hours_are_those_of_the_records(
    clip_set: ClipSet, numbers: SimpleNamespace
) -> None:
    found = summarise(clip_set)
    expected = []
    for bucket in numbers.config.buckets:
        source = clip_set.source(bucket)
        records = [source[index] for index in range(len(source))]
        seconds = sum(r.frames / r.fps for r in records if r.frames > 1)
        expected.append((bucket.name, len(records), seconds / 3600))
    assert [(each.name, each.clips, each.hours) for each in found.buckets] == expected
    assert found.buckets[0].hours == 0  # images last no time
    assert found.all.hours == (21 * 5 + 3 * 5 + 9 * 9) / 8 / 3600
    assert found.all.clips == sum(numbers.sizes)
    assert found.scores == {}
    assert "score" not in summary_text(clip_set, found)


def test_clips_of_one_bucket_may_differ_in_rate(numbers: SimpleNamespace, tmp_path: Path) -> None:
    bucket = numbers.config.buckets[1]
    rates = (8.0, 8.0, 24.0, 30000 / 1001)
    clips = [numbers.clip(bucket, number, fps=fps) for number, fps in enumerate(rates)]
    build_set(clips, tmp_path / "set", numbers.config)
    hours = summarise(ClipSet(tmp_path / "set")).all.hours
    assert hours == pytest.approx(sum(5 / fps for fps in rates) / 3600, rel=1e-12)


def test_latents_tell_the_hours_and_scores_of_their_clips(own_set: Path) -> None:
    def scored(line: dict) -> dict:
        return line | {"scores": {"motion": line["frames"] / 4}}

    shutil.copytree(own_set, own_set.with_name("latents"))
    clips = summarise(relined(own_set, scored))
    latents = relined(own_set.with_name("latents"), scored, latents=Encoding("0" * 64, "1" * 12, 4))
    found = summarise(latents)
    assert (found.buckets, found.all) == (clips.buckets, clips.all)
    assert found.scores["motion"].tolist() == clips.scores["motion"].tolist()
    assert sorted(found.scores["motion"]) == sorted([0.25] * 40 + [1.25] * 24 + [2.25] * 9)
    (row,) = found.score_table().rows
    assert row == ("motion", "73", "0.25", "0.25", "0.25", "2.25", "2.25")
    text = summary_text(latents, found)
    assert "motion" in text
    assert "latents by autoencoder 111111111111" in text


def test_a_set_without_rates_in_its_ledger_says_that_hours_are_unknown(own_set: Path) -> None:
    def older(line: dict) -> dict:
        return {key: value for key, value in line.items() if key not in ("frames", "fps")}

    clips = relined(own_set, older)
    found = summarise(clips)
    assert [each.hours for each in (*found.buckets, found.all)] == [None] * 5
    assert found.all.clips == 73
    assert "hours: unknown" in summary_text(clips, found)


def test_a_ledger_of_other_clips_is_refused(own_set: Path) -> None:
    clips = relined(own_set, lambda line: None if line["clip"] == "5x8x8-3" else line)
    with pytest.raises(DataError, match="ledger.jsonl tells of other clips than the shards"):
        summarise(clips)


@pytest.mark.parametrize(
    "values",
    [
        np.random.default_rng(0).lognormal(0, 3, 1000),
        np.zeros(7),
        np.r_[np.zeros(1000), 5.0],
        np.array([3.0]),
        np.array([-1e308, 0.0, 1e308]) / 4,
    ],
    ids=["long tail", "all equal", "one apart", "one", "extreme"],
)
def test_a_histogram_counts_every_clip(values: np.ndarray) -> None:
    counts, edges = histogram(values)
    assert sum(counts) == len(values)
    assert (len(counts), len(edges)) == (BINS, BINS + 1)
    assert edges == sorted(edges)
    assert counts[0] + counts[-1] < len(values) or len(set(values)) <= 3


def test_the_tails_do_not_push_all_else_into_one_bin() -> None:
    values = np.r_[np.linspace(0, 1, 1000), 1e6]
    counts, edges = histogram(values)
    assert edges[-1] < 1.01
    assert max(counts) < 60


def test_a_bar_is_as_long_as_its_bucket_has_clips(clip_set: ClipSet) -> None:
    text = summary_text(clip_set, summarise(clip_set))
    bars = {line.split()[0]: line.count("#") for line in text.splitlines()[1:5]}
    assert bars == {"1x8x8": 30, "5x8x8": 16, "5x8x16": 3, "9x16x8": 7}
