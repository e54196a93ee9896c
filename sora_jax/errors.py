"""Mistakes that a user can fix, each told in one sentence."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """A mistake the user can fix, told in one sentence; the command line prints it, exit code 2."""


class ConfigError(UserError):
    """A config that cannot be used: unknown field, wrong type, or a failed check between fields."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """Return "; did you mean 'depth'?" for the closest of the choices, or "" if none is close."""
    matches = difflib.get_close_matches(name, list(choices), n=1)
    return f"; did you mean '{matches[0]}'?" if matches else ""
