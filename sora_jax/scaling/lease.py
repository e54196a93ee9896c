"""A run that a process has taken for itself: its heartbeat, and how it is given back or ended."""

import contextlib
import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from typing import Literal

from sora_jax.errors import RestartableError, UserError
from sora_jax.scaling.plan import PlannedRun
from sora_jax.scaling.queue_files import (
    ENDED_FILE,
    Ended,
    Entry,
    Holding,
    lease_path,
    write_sealed,
)

BEATS = 6  # in the time after which a lease is stale


class LostLeaseError(RestartableError):
    """Another process has taken the run over."""


class Lease:
    """A run that this process has taken. `entry` is as it was then."""

    def __init__(
        self,
        entry: Entry,
        run: PlannedRun,
        number: int,
        holding: Holding,
        now: Callable[[], float] = time.monotonic,
    ):
        self.entry, self.run, self.holding = entry, run, holding
        self.directory = entry.directory
        self._number, self._now = number, now
        self._start = now() - holding.seconds

    @property
    def seconds(self) -> float:
        """That the run was held until the last heartbeat, by all who have held it."""
        before = self.entry.leases[: self._number - 1]
        return self.holding.seconds + sum(each.seconds for each in before if each is not None)

    def beat(self) -> None:
        """Says that this process lives. Raises LostLeaseError if the run was taken over, and
        UserError if the lease cannot be written."""
        if lease_path(self.directory, self._number + 1).exists():
            raise LostLeaseError(f"run {self.run.run} was taken over by another process")
        self.holding = dataclasses.replace(
            self.holding,
            beat=self.holding.beat + 1,
            seconds=self._now() - self._start,
            time=time.time(),
        )
        self._write()

    @contextlib.contextmanager
    def beating(self, lost: Callable[[str], None]) -> Iterator[None]:
        """Beats while entered. `lost` is called, in another thread, with a sentence, where the run
        was taken over, or must be by now because no heartbeat could be written."""
        left = threading.Event()

        def beat() -> None:
            last = self._now()
            while not left.wait(self.holding.lease_seconds / BEATS):
                try:
                    self.beat()
                    last = self._now()
                except LostLeaseError as error:
                    lost(str(error))
                    return
                except (UserError, OSError) as error:
                    if self._now() - last > self.holding.lease_seconds:
                        lost(f"no heartbeat of run {self.run.run} can be written: {error}")
                        return

        thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            left.set()
            thread.join()

    def give_back(self, how: Literal["stopped", "failed"], reason: str) -> None:
        """Lets others have the run."""
        self.holding = dataclasses.replace(self.holding, given_back=how, reason=reason)
        self._write()

    def finish(self, ended: Ended) -> None:
        """Keeps how the run ended. Raises LostLeaseError if it was taken over."""
        self.beat()
        write_sealed(self.directory / ENDED_FILE, dataclasses.asdict(ended))

    def _write(self) -> None:
        write_sealed(lease_path(self.directory, self._number), dataclasses.asdict(self.holding))
