"""Which shards of a set of latents are finished, as every process of the job lists them on disk.

A job that is started again, by as many processes or others, reads all lists and makes what is in
none of them.
"""

import dataclasses
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sora_jax.data.bad_records import BadRecord
from sora_jax.data.schema import DataError, Encoding, FileEntry

LISTS = "progress-*.json"


@dataclasses.dataclass(frozen=True)
class Made:
    """A finished shard, and the bad records that are left out of it."""

    entry: FileEntry
    left_out: tuple[BadRecord, ...] = ()


class Progress:
    """The lists in the directory of a set that is being made."""

    def __init__(self, directory: Path, encoding: Encoding, stripes: Any) -> None:
        """`stripes` are what decides which record is in which shard, as JSON holds it."""
        self._directory, self._encoding = directory, encoding
        self._job = {"encoding": dataclasses.asdict(encoding), "stripes": stripes}

    def exists(self) -> bool:
        return any(self._directory.glob(LISTS))

    def listed(self, process: int | None = None) -> dict[str, Made]:
        """Finished shards that are on the disk, by file; of all processes, or of one.

        Raises:
            DataError: they are of another job.
        """
        paths = self._directory.glob(LISTS) if process is None else [self._list(process)]
        found = (made for path in paths for made in self._all(path))
        return {made.entry.file: made for made in found if self._is_there(made)}

    def strike(self) -> None:
        """Strikes what is not on the disk any more from every list, also of processes that the job
        no longer has: another may make it again, to other bits, and the hash of what is gone must
        not stand beside the new one. Nobody may add to a list meanwhile.

        Raises:
            DataError: they are of another job.
        """
        for path in self._directory.glob(LISTS):
            listed = list(self._all(path))
            there = [made for made in listed if self._is_there(made)]
            if len(there) < len(listed):
                self._write(path, there)

    def keep(self, process: int, made: Sequence[Made]) -> None:
        """Writes the list of a process."""
        self._write(self._list(process), made)

    def remove(self) -> None:
        """Removes all lists."""
        for path in self._directory.glob(LISTS):
            path.unlink()

    def _list(self, process: int) -> Path:
        return self._directory / LISTS.replace("*", f"{process:05d}")

    def _is_there(self, made: Made) -> bool:
        try:
            made.entry.check(self._directory, contents=False)
        except DataError:
            return False  # then it is made again
        return True

    def _all(self, path: Path) -> Iterator[Made]:
        if not path.exists():
            return
        content = json.loads(path.read_text())
        if content["job"] != self._job:
            there = Encoding(**content["job"]["encoding"])
            raise DataError(
                f"{self._directory} holds an unfinished set of {there}, this job makes "
                f"{self._encoding} in other shards or of other models: remove it or choose "
                "another --output"
            )
        for fields in content["shards"]:
            left_out = fields.pop("left_out", ())
            yield Made(FileEntry(**fields), tuple(BadRecord(*each) for each in left_out))

    def _write(self, path: Path, made: Sequence[Made]) -> None:
        # A name of its own, for several processes may strike the same from one list at once.
        partial = path.with_suffix(f".partial-{uuid.uuid4().hex}")
        shards = [
            dataclasses.asdict(each.entry)
            | {"left_out": [(bad.index, bad.clip_id) for bad in each.left_out]}
            for each in made
        ]
        partial.write_text(json.dumps({"job": self._job, "shards": shards}))
        os.replace(partial, path)
