"""Experiment files and frozen configs: load, override by dotted name, print, fingerprint, save.

A config is a tree of frozen dataclasses whose leaves are int, float, bool, str, None, a `Literal`
choice, or tuples of these. It does nothing and knows nothing of arrays: this file imports no jax,
so a config can be checked in a moment on any machine. Every way in (an experiment file, `--set`, a
saved JSON file) goes through the same type check against the field annotations, and every change
constructs the dataclasses anew, so the checks in their `__post_init__` run again.
"""

import dataclasses
import difflib
import hashlib
import importlib.util
import json
import os
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from sora_jax.errors import ConfigError, UserError, nearest
from sora_jax.fields import (
    LATER,
    annotations,
    from_plain,
    is_config,
    item_annotation,
    join,
    leaves,
    parse,
    show,
    to_plain,
)

__all__ = [
    "LATER",
    "ConfigError",
    "UserError",
    "fingerprint",
    "from_dict",
    "load",
    "load_experiment",
    "override",
    "save",
    "to_dict",
    "to_text",
]

Config = TypeVar("Config")

FINGERPRINT_LENGTH = 12


def load_experiment(name_or_path: str, overrides: Sequence[str] = ()) -> Any:
    """Run the `experiment()` function of an experiment file and apply the overrides.

    `name_or_path` is a path to a Python file, or a name: "demo" is `experiments/demo.py` under the
    current directory or else under the checkout that this package is installed from. A file with
    several experiments has a function each: "dit_14b:p720" runs its `p720()`. `overrides`
    are texts such as "dit.depth=12" (see `override`). Returns the experiment, a frozen dataclass.
    Raises `ConfigError` for an unknown name, a file without `experiment()`, or a wrong field.
    """
    file, _, name = name_or_path.partition(":")
    name = name or "experiment"
    path = _find_experiment(file)
    module_name = f"sora_experiment_{path.stem}"
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    # Field annotations written as strings are resolved through sys.modules.
    sys.modules[module_name] = module
    # Experiments may build on each other: `from experiments import demo`.
    sys.path.insert(0, str(path.parent.parent))
    try:
        spec.loader.exec_module(module)
        function = getattr(module, name, None)
        if not callable(function):
            raise ConfigError(f"{path} has no function {name}() that returns the config")
        experiment = function()
    finally:
        sys.path.remove(str(path.parent.parent))
    if not is_config(experiment):
        raise ConfigError(f"{name}() of {path} returned {experiment!r}, not a dataclass")
    checked = from_dict(type(experiment), to_dict(experiment))
    return override(checked, *overrides)


def override(config: Config, *assignments: str) -> Config:
    """Return `config` with fields replaced: `override(config, "dit.width=96", "dit.heads=3")`.

    The name is a dotted path; items of a tuple are numbered (`data.buckets.0.weight=2`). The value
    is read by the annotation of its field: `12`, `1e-4`, `true`, `none`, `(1, 2, 2)` or `1,2,2`,
    plain or quoted text, `Bucket(frames=9, ...)`. All assignments are applied together, so that a
    check between two fields sees both new values; of two for one field the last wins. Raises
    `ConfigError` for an unknown name, a wrong type, or what the config's own checks refuse.
    """
    changes: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = (part.strip() for part in assignment.partition("="))
        if not equals or not name:
            raise ConfigError(
                f"'{assignment}' is not an override; write a dotted name, '=' and a value, "
                "for example dit.depth=12"
            )
        *parents, leaf = name.split(".")
        branch = changes
        for parent in parents:
            branch = branch.setdefault(parent, {})
            if isinstance(branch, str):
                raise ConfigError(f"'{name}' is set together with the whole of '{parent}'")
        if isinstance(branch.get(leaf), dict):
            raise ConfigError(f"'{name}' is set together with one of its own fields")
        branch[leaf] = text
    try:
        return typing.cast(Config, _apply(config, type(config), changes, ""))
    except _UnknownName as error:
        raise ConfigError(_unknown_name_sentence(config, error)) from None


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as plain JSON data: dicts, lists, numbers, texts, None."""
    return typing.cast(dict[str, Any], to_plain(config, type(config), ""))


def from_dict(cls: type[Config], data: Mapping[str, Any]) -> Config:
    """Build a config of class `cls` from what `to_dict` returned, checking every type.

    A field that is absent takes its default, so that a config saved before the field existed still
    loads: the default of a new field must be the behaviour of old. Unknown fields are errors.
    """
    return typing.cast(Config, from_plain(data, cls, ""))


def to_text(config: Any) -> str:
    """Return one `dit.depth = 12` line a field, in order; each line is also a valid override."""
    return "".join(f"{name} = {text}\n" for name, text in leaves(config, type(config), ""))


def fingerprint(config: Any) -> str:
    """Return 12 hexadecimal digits that are equal for equal configs and for no others."""
    canonical = json.dumps(to_dict(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:FINGERPRINT_LENGTH]


def save(config: Any, path: str | Path) -> None:
    """Write a config as JSON; the file is either written whole or left as it was."""
    path = Path(path)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(json.dumps(to_dict(config), indent=2) + "\n", encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise ConfigError(f"cannot write the config {path}: {error.strerror}") from error


def load(cls: type[Config], path: str | Path) -> Config:
    """Read a config of class `cls` that `save` wrote; raises `ConfigError` naming the file."""
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config {path}: {error.strerror}") from error
    except ValueError as error:
        raise ConfigError(f"the config {path} is not JSON: {error}") from error
    try:
        return from_dict(cls, data)
    except ConfigError as error:
        raise ConfigError(f"the config {path} does not fit this version: {error}") from error


# ---- finding experiment files


def _find_experiment(name_or_path: str) -> Path:
    path = Path(name_or_path)
    if path.suffix == ".py":
        if not path.is_file():
            raise ConfigError(f"there is no experiment file {name_or_path}")
        return path.resolve()
    checkout = Path(__file__).resolve().parent.parent
    known: dict[str, Path] = {}
    for folder in (checkout / "experiments", Path.cwd() / "experiments"):
        files = sorted(folder.glob("*.py"))
        known |= {file.stem: file for file in files if not file.stem.startswith("_")}
    if name_or_path not in known:
        names = f"there are: {', '.join(sorted(known))}" if known else "experiments/ holds none"
        hint = nearest(name_or_path, known)
        raise ConfigError(f"there is no experiment '{name_or_path}'{hint or '; ' + names}")
    return known[name_or_path]


# ---- overrides


class _UnknownName(Exception):
    """A dotted name that leads nowhere: `where` exists, and has no `name` among its `choices`."""

    def __init__(self, where: str, name: str, choices: Sequence[str]):
        super().__init__(where, name)
        self.where, self.name, self.choices = where, name, choices


def _apply(value: Any, annotation: Any, change: dict[str, Any] | str, where: str) -> Any:
    """Return `value` with a tree of changes applied; a leaf of the tree is the text of a value."""
    if isinstance(change, str):
        return parse(change, annotation, where)
    if is_config(value):
        kinds = annotations(type(value))
        for name in change:
            if name not in kinds:
                raise _UnknownName(where, name, list(kinds))
        changed = {
            name: _apply(getattr(value, name), kinds[name], below, join(where, name))
            for name, below in change.items()
        }
        return dataclasses.replace(value, **changed)
    if isinstance(value, tuple):
        indices = [str(index) for index in range(len(value))]
        for name in change:
            if name not in indices:
                raise ConfigError(
                    f"no item '{join(where, name)}'; {where} has {len(value)}, counted from 0"
                )
        return tuple(
            _apply(item, item_annotation(annotation, int(index)), change[index], f"{where}.{index}")
            if index in change
            else item
            for index, item in zip(indices, value, strict=True)
        )
    raise ConfigError(f"no field '{join(where, next(iter(change)))}'; {where} is {show(value)}")


def _unknown_name_sentence(config: Any, error: _UnknownName) -> str:
    """Suggest the nearest name beside the unknown one, or else a field of that name elsewhere."""
    name = join(error.where, error.name)
    close = difflib.get_close_matches(error.name, error.choices, n=1)
    below = [leaf for leaf, _ in leaves(config, type(config), "")]
    elsewhere = [leaf for leaf in below if leaf.split(".")[-1] == error.name]
    suggestions = [join(error.where, match) for match in close] or elsewhere
    if suggestions:
        return f"no field '{name}'; did you mean '{suggestions[0]}'?"
    owner = f"'{error.where}'" if error.where else "the config"
    return f"no field '{name}'; {owner} has {', '.join(error.choices)}"
