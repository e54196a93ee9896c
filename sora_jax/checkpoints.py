"""Orbax save and restore: training state, EMA, and what they mean.

A checkpoint has three items: `state` (step, model, optimizer), `ema` (a model on its own, so that
sampling never reads optimizer state) and `meta` (data position, resolved config, fingerprints, mesh
and versions as JSON). Arrays go by their path in the tree, such as `model.dit.embed.kernel`.
Orbax's CheckpointManager is used, not its v1 API, which still moves between releases; saving is
asynchronous and commits atomically, so a run that dies while saving keeps the checkpoint before.
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from sora_jax.config import UserError

Arrays = dict[str, Any]
MAX_REASON = 160  # characters of another library's account of an error


class CheckpointError(UserError):
    """A checkpoint that is missing, unreadable or of another model."""


def named(tree: Any) -> Arrays:
    """Leaves of a tree of modules by their dotted path."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {_path(path): leaf for path, leaf in leaves}


def unnamed(arrays: Mapping[str, Any], like: Any) -> Any:
    """Inverse of `named`: a tree like `like` with the leaves of `arrays`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: arrays[_path(path)], like)


def _path(path: tuple[Any, ...]) -> str:
    parts = [str(getattr(k, "name", getattr(k, "key", getattr(k, "idx", k)))) for k in path]
    # A parameter's array sits in the attribute `value` of its Variable: no part of its name.
    return ".".join(parts).removesuffix(".value")


class Checkpoints:
    """The checkpoints of one run, newest last. Keeps the last `keep`."""

    def __init__(self, directory: Path, keep: int = 2):
        self.directory = directory.absolute()
        try:
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(max_to_keep=keep, create=True),
                item_handlers={
                    "state": ocp.StandardCheckpointHandler(),
                    "ema": ocp.StandardCheckpointHandler(),
                    "meta": ocp.JsonCheckpointHandler(),
                },
            )
        except OSError as error:
            raise CheckpointError(f"cannot use {self.directory}: {_reason(error)}") from error

    def latest(self) -> int | None:
        """The newest complete checkpoint's step, or None."""
        return self._manager.latest_step()

    def save(self, state: Any, meta: Mapping[str, Any]) -> None:
        """Starts saving a TrainState; returns once the arrays are copied.

        Raises CheckpointError if this save, or the one before it, could not be written.
        """
        step = int(state.step)
        rest = dataclasses.replace(state, ema=None)
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(named(rest)),
            ema=ocp.args.StandardSave(named(state.ema)),
            meta=ocp.args.JsonSave(dict(meta)),
        )
        try:
            self._manager.check_for_errors()
            self._manager.save(step, args=items, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._cannot_write(error) from error

    def wait(self) -> None:
        """Until the last save is complete. Raises CheckpointError if it could not be written."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
        except (OSError, ValueError, RuntimeError) as error:
            raise self._cannot_write(error) from error

    def restore(self, abstract: Any, step: int | None = None) -> Any:
        """The TrainState saved at `step` (default: the newest), in the shardings of `abstract`."""
        step = self._step(step)
        rest = dataclasses.replace(abstract, ema=None)
        arrays = self._read(step, "state", named(rest))
        ema = self._read(step, "ema", named(abstract.ema))
        state = unnamed(arrays, rest)
        return dataclasses.replace(state, ema=unnamed(ema, abstract.ema))

    def restore_ema(self, abstract: Any, step: int | None = None) -> Any:
        """The averaged model alone, in the shardings of `abstract`."""
        return unnamed(self._read(self._step(step), "ema", named(abstract)), abstract)

    def meta(self, step: int | None = None) -> dict[str, Any]:
        """What was saved as `meta`."""
        step = self._step(step)
        items = ocp.args.Composite(meta=ocp.args.JsonRestore())
        with self._reading(step):
            return dict(self._manager.restore(step, args=items)["meta"])

    def close(self) -> None:
        """Waits, then releases the manager's threads."""
        try:
            self.wait()
        finally:
            self._manager.close()

    def _step(self, step: int | None) -> int:
        step = self.latest() if step is None else step
        if step is None:
            raise CheckpointError(f"no complete checkpoint in {self.directory}: train first")
        return step

    def _read(self, step: int, item: str, abstract: Arrays) -> Arrays:
        path = self._manager.directory / str(step) / item
        if not path.exists():
            raise CheckpointError(f"checkpoint {self.directory}/{step} has no item '{item}'")
        with self._reading(step):
            # Not the manager's `item_metadata`, which reads the other items too.
            metadata = ocp.StandardCheckpointHandler().metadata(path)
        saved = {name: tuple(array.shape) for name, array in dict(metadata).items()}
        wanted = {name: tuple(array.shape) for name, array in abstract.items()}
        if saved != wanted:
            raise CheckpointError(
                f"checkpoint {self.directory}/{step} is of another model: "
                f"{_difference(saved, wanted)}; use the config saved beside it"
            )
        items = ocp.args.Composite(**{item: ocp.args.StandardRestore(abstract)})
        with self._reading(step):
            return dict(self._manager.restore(step, args=items)[item])

    @contextlib.contextmanager
    def _reading(self, step: int) -> Iterator[None]:
        """Says which checkpoint is damaged."""
        try:
            yield
        except Exception as error:  # Orbax raises plain Exception for an array cut short
            raise CheckpointError(
                f"checkpoint {self.directory}/{step} cannot be read ({_reason(error)}): "
                "remove it to go on from the one before it"
            ) from error

    def _cannot_write(self, error: Exception) -> CheckpointError:
        latest = self.latest()
        before = "there is none before it" if latest is None else f"that of step {latest} is whole"
        return CheckpointError(
            f"cannot save a checkpoint in {self.directory}: {_reason(error)}; {before}"
        )


def _reason(error: Exception) -> str:
    """What the system said, out of TensorStore's long account of it; else the first line."""
    code = re.search(r"os_error_code=\W*(\d+)", str(error))
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if code:
        return os.strerror(int(code[1]))
    lines = str(error).strip().splitlines()
    return lines[0][:MAX_REASON] if lines else repr(error)


def _difference(saved: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """The first few names that differ, in words."""
    lines = []
    for name in sorted(saved.keys() | wanted.keys()):
        if name not in saved:
            lines.append(f"{name} is missing")
        elif name not in wanted:
            lines.append(f"{name} is not in the model")
        elif saved[name] != wanted[name]:
            lines.append(f"{name} is {list(saved[name])}, the model's {list(wanted[name])}")
    more = f" and {len(lines) - 3} more" if len(lines) > 3 else ""
    return ", ".join(lines[:3]) + more
