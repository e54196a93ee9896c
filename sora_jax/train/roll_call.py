"""What the processes of a run tell each other: that all do the same, and that one is to stop.

They hear of a SIGTERM through JAX's coordination service, which finds a step that all have yet to
reach. What they train on they compare every few steps: a process that draws other batches than the
rest is found then, not by a loss that comes out a little worse.
"""

import signal
import threading
import zlib
from collections.abc import Sequence
from types import FrameType, TracebackType
from typing import Any, Self

import jax
from jax.experimental import multihost_utils

from sora_jax.processes import DisagreementError, gathered
from sora_jax.types import Drawn


class RollCall:
    """Listens for SIGTERM while it is entered."""

    def __init__(self) -> None:
        self.several = jax.process_count() > 1
        self._asked = False
        self._before: Any = None
        self._first, self._seen = 0, 0

    def __enter__(self) -> Self:
        # Of several processes JAX listens itself.
        if not self.several and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        self._asked = True

    def stops(self, step: int) -> bool:
        """Whether the run is to stop after a step: true at the same step in all processes, which
        ask at every one."""
        if self.several:
            return multihost_utils.reached_preemption_sync_point(step)
        return self._asked

    def note(self, step: int, drawn: Sequence[Drawn]) -> None:
        """What this process trains on at a step."""
        if not self._seen:
            self._first = step
        self._seen = zlib.crc32(f"{step} {list(drawn)}".encode(), self._seen)

    def compare(self, step: int) -> None:
        """What all noted up to a step; all call it, while no program runs on their devices.

        Raises:
            DisagreementError: not all noted the same since the last time; names them.
        """
        first, *others = gathered(f"{self._first} {self._seen}")
        different = [number for number, other in enumerate(others, 1) if other != first]
        if different:
            raise DisagreementError(
                f"the processes of this run disagree: since step {self._first} process "
                f"{', '.join(map(str, different))} trained on other batches than process 0; start "
                "all with the same files, settings and code, from a checkpoint before that step"
            )
        self._seen = 0
