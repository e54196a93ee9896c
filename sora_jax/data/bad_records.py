"""Records that cannot be used: counted over all threads, told once a clip, and not too many.

Bad are those whose stored bytes are no clip. Hosts agree on which these are as long as they read
the same files; `sora data verify` says so of copies. Files that cannot be read are another matter:
`sources.py` tries them again, and then stops the run.
"""

import dataclasses
import threading

from sora_jax.data.schema import DataError

TRIES = 8  # positions in a row; with one record in a hundred bad, chance never makes all bad
MAX_SHARE = 0.01  # of the reads; more is no accident but a damaged set...
MIN_READS = 1_000  # ...once so many say so


@dataclasses.dataclass(frozen=True)
class BadRecord:
    """A record that cannot be used, as all hosts tell it; `error` has paths of this one."""

    index: int  # in its bucket
    clip_id: str  # empty where the record does not tell it
    error: str = dataclasses.field(default="", compare=False)


def most_bad(records: int) -> int:
    """How many bad ones a set of so many records may have to be used without them."""
    return int(MAX_SHARE * max(records, MIN_READS))


class BadRecords:
    """What a process has read since it started, and how much of it could not be used."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._told: set[tuple[int, int]] = set()
        self._reads = self._bad = 0

    @property
    def count(self) -> int:
        """Reads that failed; a clip counts every time."""
        return self._bad

    def read(self, count: int) -> None:
        """Counts reads, those that fail among them."""
        with self._lock:
            self._reads += count

    def bad(self, bucket: int, index: int, error: DataError) -> None:
        """Counts one that failed, and prints why if it is the first of this record.

        Raises:
            DataError: more than 1 % of 1,000 reads or more have failed.
        """
        with self._lock:
            self._bad += 1
            reads, bad = self._reads, self._bad
            if (bucket, index) not in self._told:
                self._told.add((bucket, index))
                print(f"data: {error}; the next clip of its bucket takes its place", flush=True)
        if reads >= MIN_READS and bad > MAX_SHARE * reads:
            raise DataError(
                f"{bad} of {reads} records read cannot be used, more than {MAX_SHARE:.0%}; the "
                f"last: {error}; find the damaged files with 'sora data verify', and build the set "
                "again"
            ) from error
