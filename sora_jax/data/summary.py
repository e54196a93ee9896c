"""What is in a set in numbers: clips and hours by bucket, and how the curated ones scored.

All is read off the manifest and the ledger, a line at a time, so that a million clips take seconds
and no record is opened. It holds for latents as for clips.
"""

import array
import collections
import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float64

from sora_jax.data.buckets import Bucket
from sora_jax.data.ledger import emitted_clips
from sora_jax.data.schema import DataError, FileEntry
from sora_jax.data.sources import ClipSet
from sora_jax.page import Table

BINS = 40
TAILS = 0.005  # share of the clips at either end that the outermost bins take in
QUANTILES = {"least": 0.0, "5 %": 0.05, "median": 0.5, "95 %": 0.95, "most": 1.0}
TEXT_BAR = 30  # characters of the longest bar on a terminal


@dataclasses.dataclass(frozen=True)
class BucketSummary:
    """What a set has of a bucket, or of all."""

    name: str
    clips: int
    shards: int
    bytes: int
    hours: float | None  # of video; None: the ledger is older than rates in it

    def row(self, all_clips: int) -> tuple[str, ...]:
        return (
            self.name,
            str(self.clips),
            f"{self.clips / max(all_clips, 1):.1%}",
            hours_text(self.hours),
            str(self.shards),
            f"{self.bytes / 1e6:.2f}",
            f"{self.bytes / 1e3 / max(self.clips, 1):.1f}",
        )


@dataclasses.dataclass(frozen=True)
class Summary:
    """A set in numbers. `scores`: of every clip that has one, by the score's name."""

    buckets: tuple[BucketSummary, ...]
    all: BucketSummary
    scores: Mapping[str, Float64[np.ndarray, "clips"]]

    def table(self) -> Table:
        """A row a bucket, then all."""
        header = ("bucket", "clips", "share", "hours", "shards", "MB", "KB/clip")
        rows = tuple(each.row(self.all.clips) for each in (*self.buckets, self.all))
        return Table("Buckets", header, rows)

    def score_table(self) -> Table:
        """A row a score."""
        rows = []
        for name, values in self.scores.items():
            found = np.quantile(values, list(QUANTILES.values()))
            rows.append((name, str(len(values)), *(f"{value:.4g}" for value in found)))
        return Table("Scores", ("score", "clips", *QUANTILES), tuple(rows))


def summarise(clips: ClipSet) -> Summary:
    """Reads the ledger of a set, of which it holds 8 bytes for each score of each clip.

    Raises:
        DataError: the ledger cannot be read, or tells of other clips than the shards hold.
    """
    path = clips.directory / clips.manifest.ledger.file
    counts: collections.defaultdict[str, collections.Counter[tuple[int | None, float | None]]]
    counts = collections.defaultdict(collections.Counter)
    scores: collections.defaultdict[str, array.array] = collections.defaultdict(_numbers)
    for clip in emitted_clips(path):
        counts[clip.bucket][clip.frames, clip.fps] += 1
        for name, value in clip.scores.items():
            scores[name].append(value)
    told = {name: found.total() for name, found in counts.items()}
    held = {name: clips.manifest.records(name) for name in clips.manifest.shards}
    if collections.Counter(told) != collections.Counter(held):  # none is as good as not there
        raise DataError(
            f"{path} tells of other clips than the shards of the set hold: build the set again"
        )
    buckets = [
        _bucket_summary(bucket.name, shards, _hours(counts[bucket.name]))
        for bucket in buckets_of(clips)
        for shards in [clips.manifest.shards[bucket.name]]
    ]
    every = [shard for shards in clips.manifest.shards.values() for shard in shards]
    hours = [bucket.hours for bucket in buckets]
    known = [each for each in hours if each is not None]
    total = math.fsum(known) if len(known) == len(hours) else None
    found = {name: np.asarray(scores[name]) for name in sorted(scores)}
    return Summary(tuple(buckets), _bucket_summary("all", every, total), found)


def buckets_of(clips: ClipSet) -> list[Bucket]:
    """The buckets that a set has clips for, images first."""
    sizes = sorted(tuple(map(int, name.split("x"))) for name in clips.manifest.shards)
    return [Bucket(frames, height, width) for frames, height, width in sizes]


def histogram(values: Float64[np.ndarray, "n"]) -> tuple[list[int], list[float]]:
    """Counts of evenly spaced bins and their edges. Every value is counted: those of the tails in
    the outermost bins, or one clip that is far from all others would leave these in one bin."""
    low, high = np.quantile(values, [TAILS, 1 - TAILS])
    if low == high:  # as good as all are equal: what else there is is the more worth seeing
        low, high = values.min(), values.max()
    counts, edges = np.histogram(np.clip(values, low, high), BINS, range=(low, high))
    return counts.tolist(), edges.tolist()


def hours_text(hours: float | None) -> str:
    """Four decimals below one hour, two above; images have none."""
    if not hours:
        return "?" if hours is None else "0"
    return f"{hours:.4f}" if hours < 1 else f"{hours:.2f}"


def summary_text(clips: ClipSet, summary: Summary) -> str:
    """Tables for a terminal, with a bar of each bucket, and the counts of the ledger."""
    most = max((bucket.clips for bucket in summary.buckets), default=1)
    bars = ["#" * math.ceil(TEXT_BAR * bucket.clips / most) for bucket in summary.buckets]
    lines = summary.table().text().splitlines()
    texts = [f"{line}  {bar}".rstrip() for line, bar in zip(lines, ["", *bars, ""], strict=True)]
    if summary.scores:
        texts += ["", summary.score_table().text(), ""]
    return "\n".join(texts + [f"{name}: {text}" for name, text in facts(clips, summary)])


def facts(clips: ClipSet, summary: Summary) -> list[tuple[str, str]]:
    """What else there is to say of a set, by name."""
    found = [("set", clips.manifest.id[:12])]
    if clips.manifest.latents is not None:
        found.append(("latents", str(clips.manifest.latents)))
    found.append(("tokenizer", f"{clips.tokenizer.vocabulary_size} pieces"))
    if summary.all.hours is None:
        found.append(("hours", "unknown, the set is older than rates in ledgers: build it again"))
    return found + [(name, str(count)) for name, count in clips.manifest.ledger_counts.items()]


def _numbers() -> array.array:
    return array.array("d")


def _hours(counts: Mapping[tuple[int | None, float | None], int]) -> float | None:
    """Of clips by frames and rate. An image, of one frame, is no video."""
    if any(frames is None for frames, _ in counts):
        return None
    seconds = (
        count * frames / fps
        for (frames, fps), count in counts.items()
        if frames is not None and fps is not None and frames > 1
    )
    return math.fsum(seconds) / 3600


def _bucket_summary(name: str, shards: Sequence[FileEntry], hours: float | None) -> BucketSummary:
    records, size = (sum(getattr(s, of) for s in shards) for of in ("records", "bytes"))
    return BucketSummary(name, records, len(shards), size, hours)
