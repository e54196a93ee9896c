"""What happened to a run and when, across restarts: events.jsonl, which `sora goodput` reads."""

import contextlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sora_jax.errors import DONE, FAILED, UserError
from sora_jax.processes import is_first

EVENTS_FILE = "events.jsonl"
STEPS_EVERY = 5.0  # seconds from one line of steps to the next: what a kill leaves unknown


class EventLog:
    """Appends a JSON line {"time": seconds since 1970, "event": name, ...} for each event.

    Of several processes one writes. A line that a kill cut short stays; the next begins a new one.
    Names are those that ml-goodput-measurement has, as record_NAME_time there:

        job_start                   time of the process's start, or `at`
        tpu_init_start, tpu_init_end
        training_preparation_start
        training_preparation_end    restored_step: 0 of a fresh run
        job_end                     code (of the process's exit), reason

    and of our own, as it has no one record for these:

        compile_end                 programs, seconds
        steps                       first, last, seconds: {data, compute, ...}, between two such
        checkpoint                  step, seconds
    """

    def __init__(
        self,
        directory: Path,
        now: Callable[[], float] = time.time,
        every: float = STEPS_EVERY,
    ):
        self._now, self._every = now, every
        self._path = directory / EVENTS_FILE if is_first() else None
        self._seen: tuple[float, int, Mapping[str, float]] | None = None
        self._written_at = now()
        self._written: tuple[int | None, Mapping[str, float]] = (None, {})
        if self._path is not None:
            directory.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and not self._path.read_bytes().endswith(b"\n"):
                with self._path.open("a") as file:
                    file.write("\n")

    def event(self, name: str, at: float | None = None, **values: Any) -> None:
        """Writes an event of now, or of `at`; what steps there are to tell of go first."""
        self._write_steps()
        self._write(name, self._now() if at is None else at, values)

    def job_start(self) -> None:
        """Of this process, at its start."""
        self.event("job_start", process_start(self._now()))

    @contextlib.contextmanager
    def session(self, restored_step: int) -> Iterator[None]:
        """A start of the process that has restored a step, until it ends, and how it ends."""
        self.job_start()
        self.event("training_preparation_end", restored_step=restored_step)
        try:
            yield
        except BaseException as error:
            code = error.exit_code if isinstance(error, UserError) else FAILED
            self.event("job_end", code=code, reason=str(error) or repr(error))
            raise
        self.event("job_end", code=DONE, reason="done")

    def steps(self, step: int, totals: Mapping[str, float]) -> None:
        """Update `step` is done, and `Clock.totals` so far. The first call says where the loop
        begins: the step restored, and totals of a fresh clock. A call with the last step again
        tells of time after it. Writes every few seconds, and before any other event."""
        if self._written[0] is None:
            self._written, self._written_at = (step, dict(totals)), self._now()
            return
        self._seen = (self._now(), step, dict(totals))
        if self._seen[0] - self._written_at >= self._every:
            self._write_steps()

    def _write_steps(self) -> None:
        if self._seen is None:
            return
        at, step, totals = self._seen
        before, old = self._written
        assert before is not None
        seconds = {kind: totals[kind] - old.get(kind, 0.0) for kind in totals}
        self._write("steps", at, {"first": before + 1, "last": step, "seconds": seconds})
        self._seen, self._written, self._written_at = None, (step, totals), at

    def _write(self, name: str, at: float, values: Mapping[str, Any]) -> None:
        if self._path is None:
            return
        # Opened anew for every line, of which there are few: nothing waits in a buffer.
        with self._path.open("a") as file:
            file.write(json.dumps({"time": at, "event": name, **values}) + "\n")


def process_start(now: float) -> float:
    """When this process started, in seconds since 1970; where the system does not tell, now."""
    try:
        after_name = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        started = int(after_name[19]) / os.sysconf("SC_CLK_TCK")  # since the machine's start
        return now - (time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    except (OSError, AttributeError, IndexError, ValueError):
        return now
