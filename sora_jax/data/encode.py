"""A set of clips -> a set of latents on disk, by any number of processes, resumed where it stopped.

Every row of a batch writes shards of its own (once.py), which a process lists with their hashes in
a file of its own as they are finished. A job that is started again, by as many processes or others,
makes what is not listed. Shards are named and filled by row alone, so the set is the same.
"""

import dataclasses
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8

from sora_jax.data.build import telling_of_no_space
from sora_jax.data.latents import BFLOAT16, LatentRecord, latent_features
from sora_jax.data.once import Once, OnceBatch, Stripes
from sora_jax.data.pipeline import read_ahead
from sora_jax.data.schema import MANIFEST_FILE, DataError, Encoding, FileEntry, Manifest
from sora_jax.data.sources import ClipSet

# Not compressed: latents give way by a fifth and take as long to unpack as all the rest of reading.
WRITER_OPTIONS = "group_size:1,uncompressed"
PROGRESS = "progress-*.json"

Moments = tuple[Sequence[np.ndarray], Sequence[np.ndarray]]  # mean, log-variance of each row
# Starts on the pixels of this process's rows, and gives what waits for the result.
Encode = Callable[[UInt8[np.ndarray, "b t h w 3"]], Callable[[], Moments]]


class TextEmbedder(Protocol):
    """Embeds captions as a fixed model does: [l, width] of each."""

    id: str
    width: int

    def __call__(self, captions: Sequence[str]) -> Sequence[np.ndarray]: ...


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
        self._done: dict[str, FileEntry] = {}
        self._label = {
            "encoding": dataclasses.asdict(encoding),
            "stripes": [dataclasses.asdict(each.stripes) for each in work],
        }
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
        if any(directory.iterdir()) and not any(directory.glob(PROGRESS)):
            raise DataError(f"{directory} is not empty: remove it or choose another --output")

    def missing(self) -> list[Part]:
        """Pieces of which a shard is not listed, or not there any more, in the order they are made.

        Every process must ask before any begins to write. What is not there any more is struck from
        every list, also of processes that this job does not have: another process may make it
        again, to other bits, and a hash of what is gone must not stand beside the new one.
        """
        for path in self._directory.glob(PROGRESS):
            listed = self._entries(path)
            there = [entry for entry in listed if self._is_there(entry)]
            if len(there) < len(listed):
                self._save(path, there)
        self._done = self._listed()
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
            DataError: a clip cannot be read, or the disk is full.
        """
        entries = list(self._listed((process,)).values())
        self._save(self._progress(process), entries)
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
                shards.add(each.reads, batch.records, moments)
                if batch.is_last:
                    entries += shards.close()
                    self._save(self._progress(process), entries)
                    shards = None

    def finish(self) -> Manifest:
        """Writes the manifest, once all processes are done; for one of them.

        Raises:
            DataError: a shard is missing.
        """
        done, clips = self._listed(), self._clips.manifest
        shards = {}
        for work in self._work:
            pieces = range(work.stripes.pieces)
            named = sorted(shard for piece in pieces for shard in _shards(work.stripes, piece))
            lacking = [file for _, file in named if file not in done]
            if lacking:
                raise DataError(f"{self._directory} lacks {lacking[0]}: start the job again")
            shards[work.stripes.bucket.name] = tuple(done[file] for _, file in named)
        for file in (clips.tokenizer.file, clips.ledger.file):
            shutil.copyfile(self._clips.directory / file, self._directory / file)
        manifest = dataclasses.replace(clips, shards=shards, latents=self._encoding)
        manifest.save(self._directory)
        for path in self._directory.glob(PROGRESS):
            path.unlink()
        return manifest

    def _lacking(
        self, stripes: Stripes, piece: int, rows: Sequence[int]
    ) -> dict[int, tuple[str, int]]:
        """File and records of the shards of these rows that are not there."""
        files = {
            row: (_file(stripes, row, piece), len(stripes.indices(row, piece))) for row in rows
        }
        return {row: (f, n) for row, (f, n) in files.items() if n and f not in self._done}

    def _listed(self, processes: Iterable[int] | None = None) -> dict[str, FileEntry]:
        """Finished shards that are on the disk, by file; of all processes, or of these.

        Raises:
            DataError: they are of another job.
        """
        paths = (
            self._directory.glob(PROGRESS)
            if processes is None
            else filter(Path.exists, map(self._progress, processes))
        )
        entries = (entry for path in paths for entry in self._entries(path))
        return {entry.file: entry for entry in entries if self._is_there(entry)}

    def _is_there(self, entry: FileEntry) -> bool:
        try:
            entry.check(self._directory, contents=False)
        except DataError:
            return False  # then it is made again
        return True

    def _entries(self, path: Path) -> list[FileEntry]:
        """What a list of finished shards holds.

        Raises:
            DataError: they are of another job.
        """
        content = json.loads(path.read_text())
        if content["job"] != self._label:
            there = Encoding(**content["job"]["encoding"])
            raise DataError(
                f"{self._directory} holds an unfinished set of {there}, this job makes "
                f"{self._encoding} in other shards or of other models: remove it or choose "
                "another --output"
            )
        return [FileEntry(**fields) for fields in content["shards"]]

    def _save(self, path: Path, entries: Sequence[FileEntry]) -> None:
        # Several processes may strike the same from one list at once.
        partial = path.with_suffix(f".partial-{uuid.uuid4().hex}")
        shards = [dataclasses.asdict(entry) for entry in entries]
        partial.write_text(json.dumps({"job": self._label, "shards": shards}))
        os.replace(partial, path)

    def _progress(self, process: int) -> Path:
        return self._directory / PROGRESS.replace("*", f"{process:05d}")


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
        files: Mapping[int, tuple[str, int]],
        serialize: Callable[[dict[str, Any]], bytes],
        embed: TextEmbedder | None,
    ) -> None:
        """`files`: name and records of the shard of each row."""
        from array_record.python.array_record_module import ArrayRecordWriter

        self._directory, self._files = directory, files
        self._serialize, self._embed = serialize, embed
        self._writers: dict[int, Any] = {
            row: ArrayRecordWriter(str(self._partial(file)), WRITER_OPTIONS)
            for row, (file, _) in self._files.items()
        }

    def add(self, rows: Sequence[int], records: Sequence[Any], moments: Moments) -> None:
        """Writes those of a batch's rows that have a record and are this process's to write."""
        means, log_variances = moments
        kept = [
            (row, LatentRecord(**_description(record), mean=mean, log_variance=log_variance))
            for row, record, mean, log_variance in zip(
                rows, records, means, log_variances, strict=True
            )
            if record is not None and row in self._writers
        ]
        texts = self._embed([record.caption for _, record in kept]) if self._embed else ()
        for place, (row, record) in enumerate(kept):
            fields = dict(vars(record))
            if self._embed:
                fields["text"] = np.asarray(texts[place], BFLOAT16)
            self._writers[row].write(self._serialize(fields))

    def close(self) -> list[FileEntry]:
        """Finishes the shards, and only now gives them their names."""
        entries = []
        for row, (file, records) in self._files.items():
            self._writers[row].close()
            os.replace(self._partial(file), self._directory / file)
            entries.append(FileEntry.of(self._directory, file, records))
        return entries

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
    names = ("clip_id", "asset_id", "caption", "frames", "height", "width", "fps")
    return {name: getattr(record, name) for name in names}
