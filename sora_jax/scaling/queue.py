"""A queue of runs in a directory that many machines see, from which each run is trained once.

    QUEUE/RUN/...         a directory for each run (queue_files.py)
    QUEUE/records.jsonl   the records of all runs that have ended

A run is taken by creating its next lease, which a file system lets one process do alone; leases are
never deleted, so no two processes both believe that they have it. The holder counts its heartbeats
in the lease. Who finds a lease unchanged for as long as it promises to beat, by its own clock and
since its own first look, takes the next: clocks of machines are never compared. A holder that was
taken for dead finds the next lease at its next beat, and leaves.

What is damaged is named: a planned run is written anew from its plan, an end is put aside and found
again from the run's last checkpoint, and a lease goes stale.
"""

import dataclasses
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from sora_jax.errors import UserError
from sora_jax.files import write_file
from sora_jax.scaling.lease import BEATS, Lease
from sora_jax.scaling.plan import PlannedRun
from sora_jax.scaling.queue_files import (
    ENDED_FILE,
    RUN_FILE,
    DamagedFileError,
    Entry,
    Holding,
    checkpoints,
    create_sealed,
    lease_path,
    read_entry,
    read_sealed,
    saved,
    set_aside,
    write_sealed,
)
from sora_jax.scaling.records import to_line

RECORDS_FILE = "records.jsonl"
LEASE_SECONDS = 180.0  # a mounted bucket may show what another machine wrote a minute late


class Queue:
    """`now` is a clock that never goes back; `sleep` waits."""

    def __init__(
        self,
        directory: Path,
        lease_seconds: float = LEASE_SECONDS,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ):
        self.directory, self.lease_seconds = directory, lease_seconds
        self.now, self._sleep = now, sleep
        self._watched: dict[Path, _Watch] = {}

    def add(self, runs: Iterable[PlannedRun]) -> int:
        """Adds those that are not there, and returns how many; what there is stays as it is. One
        that is damaged is told of and written anew. Raises UserError if it cannot be written."""
        added = 0
        for run in runs:
            path = self.directory / run.run / RUN_FILE
            try:
                if read_sealed(path) is not None:
                    continue
            except DamagedFileError as error:
                print(f"{error}; it is written anew from the plan", flush=True)
            write_sealed(path, dataclasses.asdict(run))
            added += 1
        return added

    def look(self) -> list[Entry]:
        """All runs, ordered by budget, size, seed and id; those that are damaged come last.

        Raises:
            UserError: there is no such queue.
            RestartableError: it cannot be read now.
        """
        if not self.directory.is_dir():
            raise UserError(f"there is no queue {self.directory}: `sora sweep run` makes one")
        folders = self.directory.iterdir()
        entries = [read_entry(each) for each in folders if (each / RUN_FILE).exists()]
        return sorted(entries, key=lambda each: (*_place(each.run), each.directory.name))

    def claim(
        self, worker: str, hardware: str = "", takes: Callable[[PlannedRun], bool] = lambda _: True
    ) -> "Lease | None":
        """The first run that `takes` and that is free, for this process alone. Waits for leases
        that may be stale, and for runs that others branch off.

        None: what is left, if anything, is trained by others whose hearts were seen to beat.
        """
        while True:
            waits, entries = False, self.look()
            by_name = {each.directory.name: each for each in entries}
            for entry in entries:
                if entry.run is None or entry.ended is not None or not takes(entry.run):
                    continue
                if _waits_for_trunk(entry.run, by_name):
                    waits = True
                elif entry.is_held and not (watch := self._watch(entry)).is_stale:
                    waits |= not watch.has_beaten
                elif (lease := self._take(entry, worker, hardware)) is not None:
                    return lease
                else:
                    waits = True  # another was faster
            if not waits:
                return None
            self._sleep(self.lease_seconds / BEATS)

    def held_by(self, worker: str) -> list["Lease"]:
        """Leases that a process of this worker has left behind."""
        return [
            Lease(entry, entry.run, len(entry.leases), last, self.now)
            for entry in self.look()
            if entry.is_held
            and entry.run is not None
            and (last := entry.leases[-1]) is not None
            and last.worker == worker
        ]

    def collect(self) -> Path:
        """Writes the records of all runs that have ended: the same runs, the same bytes. Of several
        that do so at once the last leaves the records of all, as it looks again."""
        path = self.directory / RECORDS_FILE
        while True:
            records = [each.ended.record for each in self.look() if each.ended is not None]
            content = "".join(to_line(each) for each in records if each is not None).encode()
            if path.exists() and path.read_bytes() == content:
                return path
            write_file(path, content)

    def _watch(self, entry: Entry) -> "_Watch":
        path, last = lease_path(entry.directory, len(entry.leases)), entry.leases[-1]
        watch = self._watched.setdefault(path, _Watch(last, self.now()))
        watch.see(last, self.now(), self.lease_seconds)
        return watch

    def _take(self, entry: Entry, worker: str, hardware: str) -> "Lease | None":
        """None: another was faster, or the run has ended in the meantime."""
        number, run = len(entry.leases) + 1, entry.run
        assert run is not None
        holding = Holding(
            worker, self.lease_seconds, saved(entry.directory), hardware, time=time.time()
        )
        if not create_sealed(lease_path(entry.directory, number), dataclasses.asdict(holding)):
            return None
        lease = Lease(read_entry(entry.directory), run, number, holding, self.now)
        if lease.entry.ended is not None:
            lease.give_back("stopped", "the run has ended")
            return None
        for sentence in lease.entry.damaged:  # by the holder alone
            print(f"{sentence}; it is put aside, and the run goes on from its checkpoint")
            set_aside(entry.directory / ENDED_FILE, number)
        return lease


@dataclasses.dataclass
class _Watch:
    """What this process has seen of a lease: that it has been so since a time of its own clock."""

    mark: Holding | None
    since: float
    has_beaten: bool = False
    is_stale: bool = False

    def see(self, mark: Holding | None, now: float, lease_seconds: float) -> None:
        if mark != self.mark:
            self.mark, self.since, self.has_beaten = mark, now, True
        limit = mark.lease_seconds if mark is not None else lease_seconds
        self.is_stale = now - self.since > limit


def _place(run: PlannedRun | None) -> tuple[float, ...]:
    if run is None:
        return (float("inf"),)
    return (run.budget, run.parameters, run.seed)


def _waits_for_trunk(run: PlannedRun, entries: Mapping[str, Entry]) -> bool:
    """Whether the run branches off another that has yet to come so far."""
    trunk = entries.get(run.branch_of or "")
    if trunk is None or trunk.ended is not None:
        return False
    return not (checkpoints(trunk.directory) / str(run.branch_step)).exists()
