"""Ends a run that hangs: with the stacks of all threads, and an exit code that starts it again."""

import faulthandler
import os
import sys
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from sora_jax.errors import RESTARTABLE

SHOWN_AGAIN = 10  # how often within its limit it looks


class Watchdog:
    """While entered, ends the process if `beat` is not called for so many seconds.

    A step that waits for a host that is gone, or for a file system, raises nothing and never ends.
    """

    def __init__(self, seconds: float, directory: Path, name: str):
        self._seconds, self._directory, self._name = seconds, directory, name
        self._last, self._doing = time.monotonic(), "starting"
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._left.set()

    def beat(self, doing: str) -> None:
        """Something has ended; `doing`: what comes next."""
        self._last, self._doing = time.monotonic(), doing

    def _watch(self) -> None:
        while not self._left.wait(self._seconds / SHOWN_AGAIN):
            if time.monotonic() - self._last > self._seconds:
                self._end()

    def _end(self) -> None:
        path = self._directory / f"stacks.{os.getpid()}.txt"
        print(
            f"{self._name}: nothing has ended for {self._seconds:.0f} s ({self._doing}); "
            f"stacks are in {path}; the same command goes on",
            file=sys.stderr,
            flush=True,
        )
        faulthandler.dump_traceback(sys.__stderr__ or 2)
        try:
            with path.open("w") as file:
                faulthandler.dump_traceback(file)
        finally:
            os._exit(RESTARTABLE)  # no thread is waited for: one of them hangs
