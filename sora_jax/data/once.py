"""Every record of a set once, in batches of fixed shapes, each row of a batch going its own way.

The records of a bucket are cut into as many stripes as a batch has rows, and row r reads stripe r
from its start to its end. What a row comes by is in the order of the set and depends on no other
row, so a process can keep its rows in files of its own, and these are the same files whichever
process has the row.
"""

import bisect
import dataclasses
import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from sora_jax.data.bad_records import BadRecord
from sora_jax.data.buckets import Bucket
from sora_jax.data.mixture import Clips, Joined
from sora_jax.data.schema import DataError, Record
from sora_jax.data.sources import ShardSource


@dataclasses.dataclass(frozen=True)
class Stripes:
    """The records of a bucket by the row of a batch that reads them, in pieces of `length`: what a
    row has of a piece is one shard."""

    bucket: Bucket
    records: int
    rows: int
    length: int

    @property
    def pieces(self) -> int:
        return -(-self._longest // self.length)

    def batches(self, piece: int) -> int:
        """Of a piece; the last is shorter."""
        return min(self.length, self._longest - piece * self.length)

    def indices(self, row: int, piece: int) -> range:
        """The records of a row in a piece, by their index in the bucket."""
        start = self._start(row) + piece * self.length
        return range(start, max(start, min(start + self.length, self._start(row + 1))))

    def _start(self, row: int) -> int:
        return self.records * row // self.rows

    @property
    def _longest(self) -> int:
        return -(-self.records // self.rows)


@dataclasses.dataclass(frozen=True)
class OnceBatch:
    """This process's rows of a batch. A row without a record has come to the end of its stripe; it
    shows black, as one of a bad record does."""

    part: int  # which stripes and piece of those that are gone over
    is_last: bool  # of the piece
    records: tuple[Record | BadRecord | None, ...]
    video: UInt8[np.ndarray, "b t h w 3"]


class Once:
    """Random access to the batches of pieces, each from its first to its last."""

    def __init__(
        self, clips: Clips, parts: Sequence[tuple[Stripes, int]], rows: Sequence[Sequence[int]]
    ) -> None:
        """`parts`: stripes and the piece of them; `rows`: what this process reads of each."""
        self._parts, self._rows = parts, rows
        self._sources = [clips.source(stripes.bucket) for stripes, _ in parts]
        counts = (stripes.batches(piece) for stripes, piece in parts)
        self._ends = list(itertools.accumulate(counts))

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __repr__(self) -> str:  # Grain prints it
        return f"Once({len(self._parts)} pieces, {len(self)} batches)"

    def __getitem__(self, number: int) -> OnceBatch:
        """Raises DataError if a shard cannot be read, which is no fault of its records."""
        part = bisect.bisect_right(self._ends, number)
        stripes, piece = self._parts[part]
        offset = stripes.batches(piece) - (self._ends[part] - number)
        size = stripes.bucket
        video = np.zeros((len(self._rows[part]), size.frames, size.height, size.width, 3), np.uint8)
        records: list[Record | BadRecord | None] = []
        for place, row in enumerate(self._rows[part]):
            indices = stripes.indices(row, piece)
            record: Record | BadRecord | None = None
            if offset < len(indices):
                index, source = indices[offset], self._sources[part]
                [found] = source.clips([index])
                if isinstance(found, DataError):
                    record = BadRecord(index, _clip_id(source, index), str(found))
                else:
                    record, pixels = found
                    # Of a stored clip with frames to spare, the first.
                    record = dataclasses.replace(record, frames=size.frames)
                    video[place] = pixels[: size.frames]
            records.append(record)
        return OnceBatch(part, number + 1 == self._ends[part], tuple(records), video)


def _clip_id(source: ShardSource[Record] | Joined, index: int) -> str:
    """Of a record that may not even be one; then empty."""
    [record] = source.records([index])
    return "" if isinstance(record, DataError) else record.clip_id
