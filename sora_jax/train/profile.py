"""A trace of a few steps for TensorBoard's profiler: what the devices did, and for which part."""

import dataclasses
import re
from pathlib import Path

import jax

from sora_jax.errors import ConfigError

STEPS = re.compile(r"(\d+):(\d+)")


@dataclasses.dataclass(frozen=True)
class ProfileWindow:
    """Steps `first` to `last`, both traced. Of few steps: a trace has every kernel of each."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> "ProfileWindow":
        """Of FIRST:LAST, such as 10:15.

        Raises:
            ConfigError: it is something else.
        """
        found = STEPS.fullmatch(text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            raise ConfigError(
                f"--profile_steps={text} is no FIRST:LAST of steps from 1 on: try 10:15"
            )
        return cls(int(found[1]), int(found[2]))


class Profiler:
    """Traces the steps of a window into `directory`/plugins/profile, where TensorBoard looks; every
    process writes a file of its own devices."""

    def __init__(self, window: ProfileWindow | None, directory: Path):
        self._window, self._directory = window, directory
        self._tracing = False

    def before(self, step: int) -> None:
        """Starts the trace if the step is the first, or the first after a restart, to be traced."""
        if self._window and self._window.first <= step <= self._window.last and not self._tracing:
            jax.profiler.start_trace(str(self._directory))
            self._tracing = True

    def after(self, step: int) -> None:
        """Ends the trace if the step was the last, whose results are there: steps only dispatched
        would be missing."""
        if self._window and step >= self._window.last:
            self.close()

    def close(self) -> None:
        """Ends a trace that a run's end finds open."""
        if self._tracing:
            self._tracing = False
            jax.profiler.stop_trace()
