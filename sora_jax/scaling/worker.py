"""A worker of a sweep: has the runs of a queue trained until none is left, each in a process of its
own.

What a run does to its process, a crash, memory that runs out or a loss that is no number, ends that
run alone: the worker writes down why, and starts the next process. The lease is held by the process
that trains, so a run that outlives its worker is still nobody else's. On a slice of several hosts
each has a worker; their processes join each other, and the first takes a run for all.
"""

import dataclasses
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import Literal

from sora_jax.errors import DONE, FAILED, RESTARTABLE, RestartableError, UserError
from sora_jax.scaling.lease import Lease
from sora_jax.scaling.queue import Queue
from sora_jax.scaling.queue_files import Ended
from sora_jax.scaling.records import RunRecord

NOTHING_LEFT = 3  # exit code of a process that found no run to take
ATTEMPTS = 2  # that fail, before a run has failed


@dataclasses.dataclass(frozen=True)
class Attempt:
    """How a process ended with a run. stopped: it goes on another time. metrics: of a run that is
    done, as `sora evaluate --suite loss` names them."""

    status: Literal["done", "diverged", "failed", "stopped"]
    reason: str = ""
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)


MakeRecord = Callable[[Lease, Attempt], RunRecord | None]


def worker_name() -> str:
    """Of this process, and of no other."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


def work(queue: Queue, command: Sequence[str], worker: str, record: MakeRecord) -> None:
    """Runs the command again and again, each time for the next run, until it finds none left.

    Raises:
        RestartableError: it was asked to stop, and the run that was trained has saved.
        UserError: the command ends without having taken a run.
    """
    with _Children(command) as children:
        while True:
            code = children.next()
            held = queue.held_by(worker)
            for lease in held:  # by a process that had no time to say why it ended
                asked = Attempt("stopped", "its worker was stopped")
                attempt = asked if children.stopped else Attempt("failed", _told(code))
                conclude(lease, attempt, record)
            queue.collect()
            if children.stopped:
                raise RestartableError("stopped by SIGTERM; the same command goes on")
            if code == NOTHING_LEFT:
                return
            if code != DONE and not held:
                error = UserError if code == FAILED else RestartableError
                raise error(f"no run could be taken: {_told(code)}, and what it said stands above")


class _Children:
    """Processes of one command, one after another; SIGTERM and Ctrl-C are passed on to them."""

    def __init__(self, command: Sequence[str]) -> None:
        self.stopped = False
        self._command = command
        self._child: subprocess.Popen[bytes] | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> "_Children":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def next(self) -> int:
        """Runs one to its end, and returns its exit code, which is negative for a signal."""
        # It reads its input to know when this process is gone; in a session of its own, or Ctrl-C
        # would reach it twice.
        self._child = subprocess.Popen(self._command, stdin=subprocess.PIPE, start_new_session=True)
        if self.stopped:
            self._child.terminate()
        with self._child:
            return self._child.wait()

    def _stop(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self.stopped = True
        if self._child is not None and self._child.poll() is None:
            self._child.terminate()


def _told(code: int) -> str:
    """Why a process ended, which could not say it itself."""
    if code < 0:
        memory = ", as where memory runs out" if -code == signal.SIGKILL else ""
        return f"its process was ended by {signal.Signals(-code).name}{memory}"
    if code == RESTARTABLE:
        return "its process found that it hangs, or lost another"
    return f"its process ended with exit code {code}"


def conclude(lease: Lease, attempt: Attempt, record: MakeRecord) -> None:
    """Writes down how an attempt ended, with a record where the run has ended too. Its heart beats
    no more. Raises LostLeaseError if the run has ended, and was taken over."""
    if attempt.status == "stopped":
        lease.give_back("stopped", attempt.reason)
    elif attempt.status == "failed" and lease.entry.failures + 1 < ATTEMPTS:
        lease.give_back("failed", attempt.reason)
    else:
        lease.beat()  # for its seconds
        lease.finish(Ended(attempt.status, attempt.reason, record(lease, attempt)))


def leave_with_worker() -> None:
    """Has this process end with its worker, whose end closes its input: an orphan would keep the
    devices from the next."""

    def wait() -> None:
        while os.read(sys.stdin.fileno(), 1):  # of sys.stdin an exiting process would wait for
            pass
        leave("its worker is gone")

    threading.Thread(target=wait, name="worker", daemon=True).start()


def lost(reason: str) -> None:
    """Ends this process as the run is no longer its own; its worker goes on with others."""
    leave(reason, DONE)


def leave(reason: str, code: int = RESTARTABLE) -> None:
    """Ends this process from any of its threads; what it trained goes on from its checkpoint."""
    sys.stderr.write(f"sora sweep run: {reason}\n")
    sys.stderr.flush()
    sys.stdout.flush()
    os._exit(code)
