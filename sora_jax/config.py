"""Experiment files and frozen configs: load, override by dotted name, print, fingerprint, save."""


class UserError(Exception):
    """A mistake the user can fix, told in one sentence: the command line prints it and exits with 2."""


class ConfigError(UserError):
    """A config that cannot be used: unknown field, wrong type, or a failed check between fields."""
