"""A judged table -> sets of shards for training and validation, in the buckets of an experiment.

    python -m data_pipelines.export --table JUDGED --experiment NAME --output SETS

Writes SETS/train, and SETS/validation if --validation is a share: assets, never clips of one, are
drawn for it by their hash. Clips are cut, resized once and encoded to the same bytes on every
machine; shards come from TFDS in the order of hashed keys, so that two runs give the same shards
however the work was spread. --output must be a folder that all workers see. Flags that are not
listed here go to Beam.
"""

import argparse
import collections
import dataclasses
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.parquetio import ReadFromParquet
from apache_beam.options.pipeline_options import PipelineOptions

from data_pipelines import table
from data_pipelines.command import run
from data_pipelines.shards import MEGABYTES, ShardWriter, file_entries
from data_pipelines.table import Row
from sora_jax.config import load_experiment
from sora_jax.data.buckets import DataConfig
from sora_jax.data.build import SourceClip, finish_set, record_of, replacing
from sora_jax.data.cuts import Plan, plan, taken
from sora_jax.data.footage import read_frames, read_image
from sora_jax.data.ledger import Ledger
from sora_jax.data.schema import DataError, FileEntry, Manifest, stored_fields
from sora_jax.data.tokenizer import Tokenizer
from sora_jax.errors import ConfigError

TRAIN, VALIDATION = "train", "validation"
TOKENIZER_CAPTIONS = 1_000_000  # that it is trained on; more change nothing but the time
Target = tuple[str, str]  # the set, and the bucket in it


def main(arguments: Sequence[str]) -> None:
    """Parses the command line and runs the pipeline."""
    parser = argparse.ArgumentParser(prog="python -m data_pipelines.export", description=__doc__)
    parser.add_argument("--table", required=True, help="what judge wrote")
    parser.add_argument("--experiment", required=True, help="whose buckets the sets are for")
    parser.add_argument("--set", action="append", default=[], help="change the experiment")
    parser.add_argument("--output", required=True, help="folder of the new sets")
    parser.add_argument("--validation", type=float, default=0.0, help="share of the assets")
    parser.add_argument("--shard_megabytes", type=int, default=MEGABYTES, help="of each shard")
    chosen, beam_flags = parser.parse_known_args(arguments)
    config = load_experiment(chosen.experiment, chosen.set).data
    sets = export(
        chosen.table,
        Path(chosen.output),
        config,
        validation=chosen.validation,
        shard_bytes=chosen.shard_megabytes * 2**20,
        options=PipelineOptions(beam_flags),
    )
    for name, manifest in sets.items():
        print(f"{chosen.output}/{name}:")
        for bucket in manifest.shards:
            print(f"  {bucket:14} {manifest.records(bucket):8} clips")
        print("  " + ", ".join(f"{key} {count}" for key, count in manifest.ledger_counts.items()))


def export(
    judged: str,
    output: Path,
    config: DataConfig,
    *,
    validation: float = 0.0,
    shard_bytes: int = MEGABYTES * 2**20,
    options: PipelineOptions | None = None,
) -> dict[str, Manifest]:
    """Writes the sets; a failure of any kind leaves nothing behind.

    Args:
        judged: the table.
        output: must be absent or empty.
        config: its buckets, vocabulary size and caption length are used.
        validation: share of the assets that go to the validation set.
        shard_bytes: about so many in a shard.
        options: of Beam.

    Raises:
        TableError: the table is not there, not whole, or was not judged.
        ConfigError: the share or the size of shards makes no sense.
        DataError: no clip fits a bucket, or there is something at the output.
    """
    if not 0 <= validation < 1:
        raise ConfigError(f"--validation {validation} is no share of the assets: give 0 to 1")
    if shard_bytes < 1:
        raise ConfigError(f"shards of {shard_bytes} bytes hold nothing: give a size above 0")
    if "rules" not in table.about(judged):
        raise table.TableError(f"{judged} has no verdicts: run data_pipelines.judge on it first")
    account = _account(judged, config, validation)
    with replacing(output) as partial:
        for name in account.parts:
            (partial / name).mkdir()
        writers = {
            target: ShardWriter(partial / target[0], target[1], shard_bytes)
            for target in account.targets
        }
        with beam.Pipeline(options=options) as pipeline:
            clips = (
                pipeline
                | "read" >> ReadFromParquet(f"{judged}/*.parquet", columns=_columns())
                | "kept" >> beam.Filter(lambda columns: columns["keep"])
                | "by asset" >> beam.Map(lambda columns: (columns["asset_id"], Row.of(columns)))
                | "clips of an asset" >> beam.GroupByKey()
                | "cut and encode" >> beam.FlatMap(_encoded, config, validation)
                | "once" >> beam.Reshuffle()
            )
            number: Any = _number  # Beam's own annotation is wrong
            by_target = clips | "targets" >> beam.Partition(number, len(writers), list(writers))
            for (target, writer), examples in zip(writers.items(), by_target, strict=True):
                name = "/".join(target)
                named = examples | f"{name} keys" >> beam.Map(lambda clip: clip[1:])
                _ = named | f"{name} shards" >> writer
        shards = {target: writer.paths() for target, writer in writers.items()}
        return _finish(partial, account, file_entries(partial, shards, options), config)


@dataclasses.dataclass
class _Account:
    """What becomes of every clip, known before any is decoded."""

    ledgers: dict[str, Ledger]
    captions: dict[str, list[tuple[str, str]]]  # of each set, by clip
    targets: list[Target]

    @property
    def parts(self) -> list[str]:
        return [TRAIN, VALIDATION] if self.captions[VALIDATION] else [TRAIN]


def _account(judged: str, config: DataConfig, validation: float) -> _Account:
    """Raises DataError if no clip goes to the training set."""
    account = _Account({TRAIN: Ledger(), VALIDATION: Ledger()}, collections.defaultdict(list), [])
    targets: set[Target] = set()
    names = _columns() + [table.SCORE + name for name in table.about(judged)["scores"]]
    every = sorted(table.rows(judged, names), key=lambda each: (each["name"], each["first"]))
    for columns in every:
        row, part = Row.of(columns), part_of(columns["asset_id"], validation)
        ledger = account.ledgers[part]
        if not columns["keep"]:
            detail = columns["detail"] or columns["duplicate_of"] or columns["clip_id"]
            ledger.dropped(row.name, columns["rule"], detail)
            continue
        found = _plan(row, config)
        if found.dropped:
            ledger.dropped(row.name, *found.dropped)
        if found.left_over:
            ledger.note(row.name, f"{found.left_over} frames left over at the end of {row.clip_id}")
        for cut in found.cuts:
            height, width = cut.size
            bucket = f"{cut.duration or cut.frames}x{height}x{width}"
            clip_id = _clip_id(row, cut.start, cut.frames)
            size = (cut.frames, row.fps or 1.0)
            ledger.emitted(row.name, clip_id, bucket, cut.changes, *size, row.scores)
            account.captions[part].append((clip_id, row.caption))
            targets.add((part, bucket))
    if not account.captions[TRAIN]:
        reasons = [f"{v} {k}" for k, v in account.ledgers[TRAIN].counts().items()]
        raise DataError(f"{judged} has no clip for a training set ({', '.join(reasons)})")
    account.targets = sorted(targets)
    return account


def _columns() -> list[str]:
    names = [field.name for field in dataclasses.fields(Row)]
    left_out = ("scores", "thumbnails", "thumbnail_seconds")
    return [name for name in names if name not in left_out] + ["keep", "rule", "duplicate_of"]


def part_of(asset_id: str, validation: float) -> str:
    """The set that all clips of an asset go to."""
    drawn = int(asset_id[:8] or "ffffffff", 16) < validation * 2**32
    return VALIDATION if drawn else TRAIN


def _plan(row: Row, config: DataConfig) -> Plan:
    left, top, right, bottom = row.box or (0, 0, row.width, row.height)
    size = (bottom - top, right - left)
    return plan(row.first, row.frames, size, config, of=row.asset_frames)


def _clip_id(row: Row, start: int, frames: int) -> str:
    return f"{row.asset_id[:16]}-{start:06d}-{start + frames:06d}"


def _encoded(
    found: tuple[str, Iterable[Row]], config: DataConfig, validation: float
) -> Iterator[tuple[Target, bytes, Mapping[str, Any]]]:
    """(target, key, example) of every clip of an asset, which is decoded once.

    Raises:
        DataError: the file is not what was analysed any more.
    """
    asset_id, rows = found
    ordered = sorted(rows, key=lambda row: row.first)
    row = ordered[0]
    asset = row.asset()
    if asset.content_id() != asset_id:
        raise DataError(f"{row.url} has changed since it was analysed: analyse the sources again")
    planned = [(row, cut) for row in ordered for cut in _plan(row, config).cuts]
    with asset.local() as path:
        frames = iter([read_image(path)]) if row.kind == "image" else read_frames(path)
        videos = taken(frames, [cut for _, cut in planned], [row.box for row, _ in planned])
        for (row, cut), video in zip(planned, videos, strict=True):
            clip_id = _clip_id(row, cut.start, cut.frames)
            captions = row.every_caption()
            clip = SourceClip(
                clip_id,
                asset_id,
                row.caption,
                video,
                row.fps or 1.0,
                row.name,
                duration=cut.duration,
                captions=captions if len(captions) > 1 else {},
            )
            bucket, record = record_of(clip, config)
            yield (part_of(asset_id, validation), bucket), clip_id.encode(), stored_fields(record)


def _number(clip: Any, count: int, targets: Sequence[Target]) -> int:
    del count
    return targets.index(clip[0])


def _finish(
    partial: Path,
    account: _Account,
    shards: Mapping[Target, tuple[FileEntry, ...]],
    config: DataConfig,
) -> dict[str, Manifest]:
    """Tokenizer, ledgers and manifests, the last files of the sets."""
    sets: dict[str, Manifest] = {}
    tokenizer: Tokenizer | None = None
    for name in account.parts:
        captions = [caption for _, caption in sorted(account.captions[name])]
        if tokenizer is None:
            tokenizer = Tokenizer.train(captions[:TOKENIZER_CAPTIONS], config.vocabulary_size)
        own = {bucket: files for (part, bucket), files in shards.items() if part == name}
        ledger = account.ledgers[name]
        sets[name] = finish_set(partial / name, own, captions, ledger, config, tokenizer)
    return sets


if __name__ == "__main__":
    run(main, sys.argv[1:])
