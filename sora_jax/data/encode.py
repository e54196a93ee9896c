"""A set of clips -> a set of latents on disk, by any number of processes, resumed where it stopped.

Every row of a batch writes shards of its own (once.py), which a process lists with their hashes in
a file of its own as they are finished. A job that is started again, by as many processes or others,
makes what is not listed. Shards are named and filled by row alone, so the set is the same. A bad
record is left out of its row's shard, and of the set; all that are left out stand in its ledger.
"""

import collections
import dataclasses
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sora_jax.data.bad_records import BadRecord, most_bad
from sora_jax.data.build import telling_of_no_space
from sora_jax.data.captions import BFLOAT16, TextEmbedder
from sora_jax.data.latents import LatentRecord, latent_features
from sora_jax.data.ledger import Ledger
from sora_jax.data.once import Once, OnceBatch, Stripes
from sora_jax.data.pipeline import read_ahead
from sora_jax.data.progress import Made, Progress
from sora_jax.data.schema import (
    EMPTY_CAPTION_FILE,
    MANIFEST_FILE,
    DataError,
    Described,
    Encoding,
    FileEntry,
    Manifest,
    stored_fields,
)
from sora_jax.data.sources import ClipSet

# Not compressed: latents give way by a fifth and take as long to unpack as all the rest of reading.
WRITER_OPTIONS = "group_size:1,uncompressed"

Moments = tuple[Sequence[np.ndarray], Sequence[np.ndarray]]  # mean, log-variance of each row
# Starts on the pixels of this process's rows, and gives what waits for the result.
Encode = Callable[[UInt8[np.ndarray, "b t h w 3"]], Callable[[], Moments]]


@dataclasses.dataclass(frozen=True)
class BucketWork:
    """How one process goes over a bucket."""

    stripes: Stripes
    reads: Sequence[int]  # rows of the batch that it supplies
    writes: Sequence[int]  # rows of these that no other process writes
    encode: Encode


Part = tuple[int, int]  # number of the bucket's work, and the piece


class LatentSet:
    """A set of latents while it is made. Several processes see the same directory."""

    def __init__(
        self, clips: ClipSet, directory: Path, encoding: Encoding, work: Sequence[BucketWork]
    ) -> None:
        """Takes the directory up, or goes on with what is there of the same job.

        Raises:
            DataError: there is something else in the directory.
        """
        self._clips, self._directory, self._encoding = clips, directory, encoding
        self._work = work
        self._done: dict[str, Made] = {}
        # As JSON holds it, where a tuple is a list.
        stripes = json.loads(json.dumps([dataclasses.asdict(each.stripes) for each in work]))
        self._progress = Progress(directory, encoding, stripes)
        self.is_finished = (directory / MANIFEST_FILE).exists()
        if self.is_finished:
            found = Manifest.load(directory).latents
            if found != encoding:
                raise DataError(
                    f"{directory} holds {found or 'clips'}, this job makes {encoding}: remove it "
                    "or choose another --output"
                )
            return
        directory.mkdir(parents=True, exist_ok=True)
        if any(directory.iterdir()) and not self._progress.exists():
            raise DataError(f"{directory} is not empty: remove it or choose another --output")

    def missing(self) -> list[Part]:
        """Pieces of which a shard is not listed, or not there any more, in the order they are made.

        Every process must ask before any begins to write: shards that are gone are struck from the
        lists here.
        """
        self._progress.strike()
        self._done = self._progress.listed()
        return [
            (number, piece)
            for number, work in enumerate(self._work)
            for piece in range(work.stripes.pieces)
            if not all(file in self._done for _, file in _shards(work.stripes, piece))
        ]

    def write(self, missing: Sequence[Part], process: int, embed: TextEmbedder | None) -> None:
        """Makes the shards that this process writes of the pieces; `process`: its number.

        Shards that are listed stay, for all that their piece is gone over for others: made by
        another number of devices, the last bits may differ from those that are hashed.

        Raises:
            DataError: too many records are bad, a shard cannot be read, or the disk is full.
        """
        made = list(self._progress.listed(process).values())
        self._progress.keep(process, made)
        bad = _left_out(self._done.values())
        work = [self._work[number] for number, _ in missing]
        pieces = [(each.stripes, piece) for each, (_, piece) in zip(work, missing, strict=True)]
        once = Once(self._clips, pieces, [each.reads for each in work])
        # Before threads read: one that imports TFDS while this one does may wait for it for ever.
        serialize = _serializer(with_text=embed is not None)
        with telling_of_no_space(self._directory, "start again when there is some"):
            shards = None
            for batch, moments in _encoded(read_ahead(once), work):
                stripes, piece = pieces[batch.part]
                each = work[batch.part]
                if shards is None:
                    files = self._lacking(stripes, piece, each.writes)
                    shards = _Shards(self._directory, files, serialize, embed)
                for record in shards.add(each.reads, batch.records, moments):
                    print(f"encode: {record.error}; it is left out", flush=True)
                    bad += 1
                    self._allow(bad)
                if batch.is_last:
                    made += shards.close()
                    self._progress.keep(process, made)
                    shards = None

    def check(self) -> None:
        """Raises DataError if too many records are left out of what is finished."""
        self._allow(_left_out(self._progress.listed().values()))

    def finish(self, embed: TextEmbedder | None) -> Manifest:
        """Writes the manifest, once all processes are done; for one of them.

        Raises:
            DataError: a shard is missing, or too many records are bad.
        """
        self.check()
        done, clips = self._progress.listed(), self._clips.manifest
        shards, ledger = {}, Ledger()
        for work in self._work:
            name, pieces = work.stripes.bucket.name, range(work.stripes.pieces)
            named = sorted(shard for piece in pieces for shard in _shards(work.stripes, piece))
            lacking = [file for _, file in named if file not in done]
            if lacking:
                raise DataError(f"{self._directory} lacks {lacking[0]}: start the job again")
            shards[name] = tuple(done[file].entry for _, file in named)
            for bad in (bad for _, file in named for bad in done[file].left_out):
                ledger.dropped(f"record {bad.index} of {name}", "bad record", bad.clip_id)
        for file in (clips.tokenizer.file, clips.ledger.file):
            shutil.copyfile(self._clips.directory / file, self._directory / file)
        ledger.save(self._directory / clips.ledger.file, after=True)
        empty = None
        if embed is not None:
            [text] = embed([""])
            np.save(self._directory / EMPTY_CAPTION_FILE, np.asarray(text, np.float32))
            empty = FileEntry.of(self._directory, EMPTY_CAPTION_FILE)
        manifest = dataclasses.replace(
            clips,
            shards=shards,
            empty_caption=empty,
            ledger=FileEntry.of(self._directory, clips.ledger.file),
            ledger_counts=_sum(clips.ledger_counts, ledger.counts()),
            latents=self._encoding,
        )
        manifest.save(self._directory)
        self._progress.remove()
        return manifest

    def _allow(self, bad: int) -> None:
        """Raises DataError where so many are too many: a count of all that were found so far, so
        that a job of any number of processes stops, at some time, or none does."""
        records = sum(work.stripes.records for work in self._work)
        if bad > most_bad(records) or bad == records:
            raise DataError(
                f"{bad} of {records} records of {self._clips.directory} cannot be used, too many "
                "to leave out: find damaged files with 'sora data verify', build the set again, "
                "and encode that to another --output"
            )

    def _lacking(self, stripes: Stripes, piece: int, rows: Sequence[int]) -> dict[int, str]:
        """Files of the shards of these rows that are not there."""
        files = {row: _file(stripes, row, piece) for row in rows if stripes.indices(row, piece)}
        return {row: file for row, file in files.items() if file not in self._done}


def _left_out(shards: Iterable[Made]) -> int:
    return sum(len(made.left_out) for made in shards)


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted((collections.Counter(one) + collections.Counter(other)).items()))


def _shards(stripes: Stripes, piece: int) -> list[tuple[int, str]]:
    """(First record, file) of every row's shard of a piece."""
    return [
        (indices.start, _file(stripes, row, piece))
        for row in range(stripes.rows)
        if (indices := stripes.indices(row, piece))
    ]


def _file(stripes: Stripes, row: int, piece: int) -> str:
    return f"latents-{stripes.bucket.name}.array_record-{row:05d}-{piece:05d}"


def _encoded(
    batches: Iterable[OnceBatch], work: Sequence[BucketWork]
) -> Iterator[tuple[OnceBatch, Moments]]:
    """Batches with their moments, each given out while the next is encoded."""
    before: tuple[OnceBatch, Callable[[], Moments]] | None = None
    for batch in batches:
        started = work[batch.part].encode(batch.video)
        if before is not None:
            yield before[0], before[1]()
        before = batch, started
    if before is not None:
        yield before[0], before[1]()


class _Shards:
    """The shards of one piece that a process writes, open side by side."""

    def __init__(
        self,
        directory: Path,
        files: Mapping[int, str],
        serialize: Callable[[dict[str, Any]], bytes],
        embed: TextEmbedder | None,
    ) -> None:
        """`files`: name of the shard of each row."""
        from array_record.python.array_record_module import ArrayRecordWriter

        self._directory, self._files = directory, files
        self._serialize, self._embed = serialize, embed
        self._writers: dict[int, Any] = {
            row: ArrayRecordWriter(str(self._partial(file)), WRITER_OPTIONS)
            for row, file in self._files.items()
        }
        self._records = dict.fromkeys(files, 0)
        self._left_out: dict[int, list[BadRecord]] = {row: [] for row in files}

    def add(self, rows: Sequence[int], records: Sequence[Any], moments: Moments) -> list[BadRecord]:
        """Writes those of a batch's rows that have a record and are this process's to write.
        Returns bad ones among these."""
        bad, kept = [], []
        for row, record, mean, log_variance in zip(rows, records, *moments, strict=True):
            if row not in self._writers or record is None:
                continue
            if isinstance(record, BadRecord):
                self._left_out[row].append(record)
                bad.append(record)
                continue
            fields = _description(record)
            kept.append((row, LatentRecord(**fields, mean=mean, log_variance=log_variance)))
        texts = self._embed([record.caption for _, record in kept]) if self._embed and kept else ()
        for place, (row, record) in enumerate(kept):
            fields = stored_fields(record)
            if self._embed:
                fields["text"] = np.asarray(texts[place], BFLOAT16)
            self._writers[row].write(self._serialize(fields))
            self._records[row] += 1
        return bad

    def close(self) -> list[Made]:
        """Finishes the shards, and only now gives them their names."""
        made = []
        for row, file in self._files.items():
            self._writers[row].close()
            os.replace(self._partial(file), self._directory / file)
            entry = FileEntry.of(self._directory, file, self._records[row])
            made.append(Made(entry, tuple(self._left_out[row])))
        return made

    def _partial(self, file: str) -> Path:
        return self._directory / f"{file}.partial"


def _serializer(*, with_text: bool) -> Callable[[dict[str, Any]], bytes]:
    """What makes a stored example of a record's fields, as TFDS does."""
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    features = latent_features(with_text)
    serializer = ExampleSerializer(features.get_serialized_info())

    def serialize(fields: dict[str, Any]) -> bytes:
        example = features.encode_example({name: fields[name] for name in features})
        return bytes(serializer.serialize_example(example))

    return serialize


def _description(record: Any) -> dict[str, Any]:
    return {field.name: getattr(record, field.name) for field in dataclasses.fields(Described)}
