"""Random access to the records of a set on disk, checked against its manifest."""

import bisect
import itertools
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from array_record.python import array_record_module

from sora_jax.data.buckets import Bucket, DataConfig
from sora_jax.data.latents import LatentRecord, posterior_mean
from sora_jax.data.media import decode_record
from sora_jax.data.schema import DataError, Encoding, FileEntry, Manifest, Record
from sora_jax.data.tokenizer import Tokenizer
from sora_jax.errors import RestartableError

# Sets up to this size are hashed when they are opened: about a second.
HASH_ON_OPEN_BYTES = 2**30
MAX_OPEN_SHARDS = 256  # file handles of one source
RETRY_SECONDS = (0.1, 1.0, 10.0)  # waits before a file that cannot be read is tried again
# What ArrayRecord raises, the last also where it could not open the file.
READ_ERRORS = (ValueError, RuntimeError, IndexError)

Usable = TypeVar("Usable")
Stored = TypeVar("Stored", Record, LatentRecord)


class UnreadableError(RestartableError, DataError):
    """Files that a host cannot read now, though others may."""


class ShardSource(Generic[Stored]):
    """Records of one bucket by index, over all of its shards.

    Grain's own ArrayRecordDataSource would do the same with a cost per read that grows with the
    records in the shard, and opens every shard once to count it; the manifest has the counts.
    """

    def __init__(
        self,
        directory: Path,
        shards: Sequence[FileEntry],
        parse: Callable[[bytes], Stored],
        decode: Callable[[Stored], np.ndarray],
    ) -> None:
        """`parse` makes records of what the shards hold, `decode` arrays of records; both raise
        ValueError."""
        self._directory, self._shards = directory, tuple(shards)
        self._parse: Callable[[bytes], Stored] = parse
        self._decode: Callable[[Stored], np.ndarray] = decode
        self._ends = list(itertools.accumulate(shard.records for shard in shards))
        self._open: dict[int, Any] = {}
        self._unreadable: dict[int, DataError] = {}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __repr__(self) -> str:  # Grain prints it
        return f"ShardSource({len(self._shards)} shards, {len(self)} records)"

    def shard_of(self, index: int) -> str:
        """Path of the shard that holds a record, for messages."""
        return str(self._directory / self._shards[self._place(index)[0]].file)

    def __getitem__(self, index: int) -> Stored:
        """Raises DataError, naming the shard, if the record cannot be read."""
        return usable(self.records([index])[0])

    def clip(self, index: int) -> tuple[Stored, np.ndarray]:
        """A record and its pixels, uint8 [t, h, w, 3], or its latents, bfloat16 [t, h, w, c].

        Raises:
            DataError: it cannot be read or decoded; names the clip and the shard.
        """
        return usable(self.clips([index])[0])

    def records(self, indices: Sequence[int]) -> list[Stored | DataError]:
        """Several records at once; in place of a bad one, the error that says why.

        All are read, then all are parsed: every step of the work repeated in a row runs from the
        processor's caches, in two thirds of the time.

        Raises:
            DataError: a shard cannot be read, which is no fault of its records.
        """
        stored = [self._stored(index) for index in indices]
        return [self._parsed(*each) for each in zip(indices, stored, strict=True)]

    def clips(self, indices: Sequence[int]) -> list[tuple[Stored, np.ndarray] | DataError]:
        """Several of `clip` at once, with errors as of `records`."""
        records = self.records(indices)
        return [self._decoded(*each) for each in zip(indices, records, strict=True)]

    def _stored(self, index: int) -> bytes | DataError:
        if not 0 <= index < len(self):
            raise IndexError(index)
        if index in self._unreadable:
            return self._unreadable[index]
        try:
            return self._read(index)
        except READ_ERRORS:
            return self._stored_again(index)

    def _read(self, index: int) -> bytes:
        shard, offset = self._place(index)
        stored: bytes = self._reader(shard).read(offset, offset + 1)[0]
        if not stored:  # as ArrayRecord gives where a file ends early
            raise ValueError("it is empty")
        return stored

    def _stored_again(self, index: int) -> bytes | DataError:
        """After a failure, of which ArrayRecord does not say whether it is the record's.

        A bad record is so on every host, and all replace it alike. A file system that fails one
        host is not: that host would silently train on other clips than the rest. So the shard is
        first read as any file, until that works.
        """
        shard = self._place(index)[0]
        failure: Exception | None = None
        for seconds in (*RETRY_SECONDS, None):
            self._close(shard)  # opened while files could not be read, a reader stays empty
            try:
                self._shards[shard].check(self._directory, contents=False)
                read_through(self._directory / self._shards[shard].file)
                return self._read(index)
            except READ_ERRORS as error:
                return self._unreadable.setdefault(index, self._bad(index, error))
            except (OSError, DataError) as error:
                failure = error
            if seconds is not None:
                time.sleep(seconds)
        raise UnreadableError(
            f"{self.shard_of(index)} cannot be read on this host: {failure}; start again once it "
            "can"
        ) from failure

    def _parsed(self, index: int, stored: bytes | DataError) -> Stored | DataError:
        if isinstance(stored, DataError):
            return stored
        try:
            return self._parse(stored)
        except ValueError as error:
            return self._bad(index, error)

    def _decoded(
        self, index: int, record: Stored | DataError
    ) -> tuple[Stored, np.ndarray] | DataError:
        if isinstance(record, DataError):
            return record
        try:
            return record, self._decode(record)
        except ValueError as error:
            return DataError(f"clip {record.clip_id} in {self.shard_of(index)}: {error}")

    def _bad(self, index: int, error: Exception) -> DataError:
        offset = self._place(index)[1]
        return DataError(f"{self.shard_of(index)}: record {offset} cannot be read: {error}")

    def _place(self, index: int) -> tuple[int, int]:
        """Shard of a record, and its number in there."""
        shard = bisect.bisect_right(self._ends, index)
        return shard, index - (self._ends[shard] - self._shards[shard].records)

    def _reader(self, shard: int) -> Any:
        with self._lock:
            reader = self._open.pop(shard, None)
            if reader is None:
                reader = array_record_module.ArrayRecordReader(
                    str(self._directory / self._shards[shard].file),
                    options="readahead_buffer_size:0",
                )
            self._open[shard] = reader  # the most recently used is last
            if len(self._open) > MAX_OPEN_SHARDS:
                self._open.pop(next(iter(self._open)))  # closed when its last user drops it
        return reader

    def _close(self, shard: int) -> None:
        with self._lock:
            self._open.pop(shard, None)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}, "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _lock=threading.Lock())


def read_through(path: Path) -> None:
    """Reads all of a file for nothing but the OSError that says why it cannot be read."""
    with path.open("rb", buffering=0) as file:
        while file.read(2**20):
            pass


def usable(found: Usable | DataError) -> Usable:
    """What was found; raises it where it is an error."""
    if isinstance(found, DataError):
        raise found
    return found


class ClipSet:
    """A finished set of clips, or of the latents of clips: its manifest, its tokenizer and its
    records by bucket."""

    def __init__(self, directory: Path | str) -> None:
        """Opens a set and checks its files against the manifest.

        Existence and size are always checked, contents if the set is below 1 GiB.

        Raises:
            DataError: the set has no manifest, or a file is missing or not the manifest's.
        """
        self.directory = Path(directory)
        self.manifest = Manifest.load(self.directory)
        files = self.manifest.files()
        small = sum(file.bytes for file in files) <= HASH_ON_OPEN_BYTES
        self.verify(contents=small)
        self.tokenizer = Tokenizer.load(self.directory / self.manifest.tokenizer.file)

    def verify(self, *, contents: bool = True) -> None:
        """Checks every file, `contents` by hash; raises DataError at the first that fails."""
        for file in self.manifest.files():
            file.check(self.directory, contents=contents)

    names: Sequence[str] = ()  # of the sets that this one is made of, where it is a mixture

    @property
    def id(self) -> str:
        """sha256 over everything in the set."""
        return self.manifest.id

    @property
    def encoding(self) -> Encoding | None:
        """Of the latents that the set holds, if it does."""
        return self.manifest.latents

    def empty_caption(self) -> np.ndarray:
        """Embedding [l, d] of the empty caption, float32.

        Raises:
            DataError: captions of the set are not embedded.
        """
        if self.manifest.empty_caption is None:
            raise DataError(
                f"{self.directory} holds no embeddings of captions: make it with "
                "sora encode --embed, embed in the step with an encoder that `sora import` made "
                "(--embed), or train with text.source=encoder"
            )
        text: np.ndarray = np.load(self.directory / self.manifest.empty_caption.file)
        return text

    def counts(self, bucket: Bucket) -> list[int]:
        """Records of a bucket, of each set that this one is made of: itself."""
        return [self.manifest.records(bucket.stored)]

    def source(self, bucket: Bucket) -> ShardSource[Any]:
        """Records of a bucket; empty if the set has none."""
        shards = self.manifest.shards.get(bucket.stored, ())
        if self.manifest.latents is None:
            return ShardSource(self.directory, shards, Record.parse, decode_record)
        return ShardSource(self.directory, shards, LatentRecord.parse, posterior_mean)

    def require_pixels(self, purpose: str) -> None:
        """Raises DataError if the set holds latents."""
        if self.manifest.latents is not None:
            raise DataError(
                f"{self.directory} holds {self.manifest.latents}: {purpose} needs the clips "
                "themselves, so give that set"
            )

    def filled_buckets(self, config: DataConfig) -> tuple[int, ...]:
        """Indices into `config.buckets` of those that the set has records for."""
        return tuple(
            index
            for index, bucket in enumerate(config.buckets)
            if self.manifest.records(bucket.stored)
        )
