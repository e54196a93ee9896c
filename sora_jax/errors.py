"""What ends a command early, each told in one sentence, and the exit code it ends with."""

import difflib
from collections.abc import Iterable

# Exit codes, as whoever launches a command reads them; all that stands for a signal (128 and more)
# means the same as RESTARTABLE.
DONE = 0
FAILED = 1  # for good: the same command would fail again
RESTARTABLE = 42  # the same command goes on where this one stopped


class UserError(Exception):
    """A mistake the user can fix, told in one sentence; the command line prints it and exits with
    `exit_code`."""

    exit_code = FAILED
    leaves_together = False  # whether all processes of a run raise it


class RestartableError(UserError):
    """Nothing is wrong with the run: the same command, given again, goes on with it."""

    exit_code = RESTARTABLE


class ConfigError(UserError):
    """A config that cannot be used: unknown field, wrong type, or a failed check between fields."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return "; did you mean 'depth'?" for the closest of the choices, or "" if none is close."""
    matches = difflib.get_close_matches(name, list(choices), n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""
