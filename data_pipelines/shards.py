"""Shards of a set, written by TFDS on Beam, and the manifest's entries for them."""

import dataclasses
import json
import os
import shutil
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from sora_jax.data.schema import FileEntry, features

MEGABYTES = 384  # of a shard: between 256 and 512, as hashed keys fill shards unevenly


class ShardWriter(beam.PTransform):
    """(key, example) -> the shards of one bucket of one set, of about so many bytes, by TFDS. A
    shard is held in memory while it is written."""

    def __init__(self, directory: Path, bucket: str, shard_bytes: int) -> None:
        from tensorflow_datasets.core import example_serializer, file_adapters, naming, writer

        super().__init__()
        self._template = naming.ShardedFileTemplate(
            data_dir=directory,
            dataset_name="sora",
            split=bucket,
            filetype_suffix="array_record",
        )
        self._writer = writer.BeamWriter(
            serializer=example_serializer.ExampleSerializer(features().get_serialized_info()),
            filename_template=self._template,
            hash_salt=bucket,
            disable_shuffling=False,
            example_writer=writer.ExampleWriter(file_adapters.FileFormat.ARRAY_RECORD),
            shard_config=_by_bytes(shard_bytes),
        )

    def expand(self, examples: Any) -> Any:
        return self._writer.write_from_pcollection(examples)

    def paths(self) -> dict[Path, int]:
        """Shards and their records, once the pipeline has run."""
        lengths, _ = self._writer.finalize()
        paths = [
            self._template.sharded_filepath(shard_index=number, num_shards=len(lengths))
            for number in range(len(lengths))
        ]
        return {Path(os.fspath(path)): n for path, n in zip(paths, lengths, strict=True)}


def _by_bytes(shard_bytes: int) -> Any:
    """TFDS's own choice of how many shards is a power of 2 that depends on limits of its own."""
    from tensorflow_datasets.core.utils import shard_utils

    @dataclasses.dataclass(frozen=True)
    class ByBytes(shard_utils.ShardConfig):
        def get_number_shards(
            self, total_size: int, num_examples: int, uses_precise_sharding: bool = True
        ) -> int:
            return max(1, min(num_examples, round(total_size / shard_bytes)))

    return ByBytes()


def file_entries(
    directory: Path,
    shards: Mapping[Any, Mapping[Path, int]],
    options: PipelineOptions | None,
) -> dict[Any, tuple[FileEntry, ...]]:
    """The manifest's entries for shards, hashed where there are workers.

    Args:
        directory: where scratch files may lie for so long; all workers see it.
        shards: records of every shard, by set and bucket.
        options: of Beam.
    """
    listed = [(path, records) for paths in shards.values() for path, records in paths.items()]
    scratch = directory / "hashes"
    scratch.mkdir()
    with beam.Pipeline(options=options) as pipeline:
        _ = (
            pipeline
            | beam.Create(
                [
                    (str(scratch / str(n)), str(path), count)
                    for n, (path, count) in enumerate(listed)
                ]
            )
            | beam.Reshuffle()
            | beam.MapTuple(_hash)
        )
    entries = {
        path: FileEntry(**json.loads((scratch / str(number)).read_text()))
        for number, (path, _) in enumerate(listed)
    }
    shutil.rmtree(scratch)
    return {target: tuple(entries[path] for path in paths) for target, paths in shards.items()}


def _hash(scratch: str, shard: str, records: int) -> None:
    """Writes a shard's entry to a file of its own; Beam's sinks take longer than the hash."""
    path, place = Path(shard), Path(scratch)
    entry = FileEntry.of(path.parent, path.name, records)
    partial = place.with_suffix(f".{uuid.uuid4().hex}")  # a bundle may run twice at once
    partial.write_text(json.dumps(dataclasses.asdict(entry)))
    os.replace(partial, place)
