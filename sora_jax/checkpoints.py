"""Orbax save and restore: training state, EMA, and what they mean.

A checkpoint has three items: `state` (step, model, optimizer), `ema` (a model on its own, so that
sampling never reads optimizer state) and `meta` (data position, resolved config, fingerprints, mesh
and versions as JSON). Arrays go by their path in the tree, such as `model.dit.embed.kernel`.
Orbax's CheckpointManager is used, not its v1 API, which still moves between releases; saving is
asynchronous and commits atomically, so a run that dies while saving keeps the checkpoint before.

Storage loses files and bits without a word: `meta` holds a checksum of every array, taken on the
devices before it was saved and compared once it is restored, and one of itself.
"""

import contextlib
import dataclasses
import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

import jax
import orbax.checkpoint as ocp
from absl import flags
from etils import epath

from sora_jax.errors import ConfigError, RestartableError, UserError
from sora_jax.processes import BARRIER_SECONDS, gathered, is_first, wait_for_all
from sora_jax.saved_arrays import array_handler, as_saved, read_arrays, read_metadata
from sora_jax.sharding.checksums import checksums

Arrays = dict[str, Any]
MAX_REASON = 160  # characters of another library's account of an error


class CheckpointError(UserError):
    """A checkpoint that is missing, unreadable or of another model."""


class DamagedError(CheckpointError):
    """A checkpoint whose files are not, or not what, was saved."""


class PassingError(RestartableError, CheckpointError):
    """A checkpoint that could not be written this time: a file system or a process was away."""


# What a restart does not help against.
STAYS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EACCES, errno.EPERM, errno.EROFS)
Result = TypeVar("Result")


@dataclasses.dataclass(frozen=True)
class RetentionConfig:
    """Which checkpoints of a run stay: the `last` ones, those of every so many steps, and the one
    that is best by a metric that an evaluator logs, such as `psnr_db`."""

    last: int = 2
    every_steps: int | None = None
    best: str | None = None
    best_is: Literal["highest", "lowest"] = "highest"

    def __post_init__(self) -> None:
        if self.last < 1 or (self.every_steps is not None and self.every_steps < 1):
            raise ConfigError(
                f"retention: last={self.last} and every_steps={self.every_steps} must be positive"
            )

    def kept(self, values: Mapping[int, float | None]) -> set[int]:
        """Of the steps of checkpoints, each with its value of the metric if it has one."""
        steps = sorted(values)
        kept = set(steps[-self.last :])
        if self.every_steps is not None:
            kept |= {step for step in steps if step % self.every_steps == 0}
        valued = {step: value for step, value in values.items() if value is not None}
        if valued:
            choose = max if self.best_is == "highest" else min
            kept.add(choose(sorted(valued), key=valued.__getitem__))
        return kept


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
    """The checkpoints of one run, in a directory of this machine or a bucket (gs://). All processes
    of a run call every method."""

    def __init__(self, directory: epath.PathLike, retention: RetentionConfig = RetentionConfig()):
        is_local = "://" not in str(directory)
        self.directory = epath.Path(os.path.abspath(directory) if is_local else directory)
        self._values: dict[int, float | None] = {}
        self._retention = retention
        # Orbax's own default is a barrier of the devices, which waits for ever.
        flags.FLAGS["experimental_orbax_use_distributed_barrier"].value = True
        try:
            self._manager = ocp.CheckpointManager(
                self.directory,
                options=ocp.CheckpointManagerOptions(
                    create=True,
                    preservation_policy=_Kept(self._kept),
                    async_options=ocp.AsyncOptions(timeout_secs=BARRIER_SECONDS),
                ),
                item_handlers={
                    "state": array_handler(),
                    "ema": array_handler(),
                    "meta": ocp.JsonCheckpointHandler(),
                },
            )
        except (OSError, ImportError) as error:  # the latter where a bucket's client is missing
            raise CheckpointError(f"cannot use {self.directory}: {_reason(error)}") from error

    def steps(self) -> list[int]:
        """Of the complete checkpoints, the newest first."""
        return sorted(self._manager.all_steps(), reverse=True)

    def latest(self) -> int | None:
        """The newest complete checkpoint's step, or None."""
        return max(self.steps(), default=None)

    def save(
        self, state: Any, meta: Mapping[str, Any], values: Mapping[str, float] | None = None
    ) -> None:
        """Starts saving a TrainState; returns once the arrays are copied. `values`: what evaluators
        last logged, for RetentionConfig.best.

        Raises CheckpointError if this save, or the one before it, could not be written.
        """
        step = int(state.step)
        items = {name: as_saved(named(part)) for name, part in _parts(state).items()}
        best = (values or {}).get(self._retention.best or "")
        # A copy: it is written while the run goes on, and changes what it has given here.
        content = {**meta, "checksums": state_checksums(state), "best": best}
        content = json.loads(json.dumps(content))
        content["digest"] = _digest(content)
        self.check()
        self._values[step] = best
        try:
            args = ocp.args.Composite(meta=ocp.args.JsonSave(content), **items)
            self._manager.save(step, args=args, force=True)
        except (OSError, ValueError, RuntimeError) as error:
            raise self._cannot_write(error) from error

    def check(self) -> None:
        """Raises CheckpointError as soon as it is known that a save could not be written."""
        try:
            self._manager.check_for_errors()
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
        """The TrainState saved at `step` (default: the newest), in the shardings of `abstract`.

        Raises:
            CheckpointError: it is of another model.
            DamagedError: in any process, its files cannot be read, or give other numbers.
        """
        step = self._step(step)
        parts = {
            name: unnamed(self._read(step, name, named(part)), part)
            for name, part in _parts(abstract).items()
        }
        return dataclasses.replace(parts["state"], ema=parts["ema"])

    def restore_ema(self, abstract: Any, step: int | None = None, part: str = "") -> Any:
        """The averaged model, or its part of this beginning of names; errors as `restore`."""
        return self._restore_part("ema", part, abstract, step)

    def restore_model(self, abstract: Any, step: int | None = None, part: str = "") -> Any:
        """The model as it is trained; otherwise as `restore_ema`."""
        return self._restore_part("state", f"model.{part}", abstract, step)

    def _restore_part(self, item: str, part: str, abstract: Any, step: int | None) -> Any:
        wanted = {part + name: array for name, array in named(abstract).items()}
        arrays = self._read(self._step(step), item, wanted, only=part)
        return unnamed({name.removeprefix(part): each for name, each in arrays.items()}, abstract)

    def meta(self, step: int | None = None) -> dict[str, Any]:
        """What was saved as `meta`. Raises DamagedError if it cannot be read or was changed."""
        own = ("checksums", "best")
        return {n: value for n, value in self._meta(self._step(step)).items() if n not in own}

    def _meta(self, step: int) -> dict[str, Any]:
        def read() -> dict[str, Any]:
            path = self.directory / str(step) / "meta"
            content = dict(ocp.JsonCheckpointHandler().restore(path))
            if content.pop("digest", None) != _digest(content):
                raise ValueError("meta is not what was saved")
            return content

        return self._in_all(step, read)

    def set_aside(self, step: int) -> epath.Path:
        """Moves a damaged checkpoint out of the way, to where it is returned to be."""
        place = self.directory.parent / "damaged_checkpoints" / str(step)
        if is_first():
            place.parent.mkdir(parents=True, exist_ok=True)
            # In a bucket there is no folder until there is a file in it.
            (place.parent / "README").write_text("These were damaged; nothing uses them.\n")
            if place.exists():
                place.rmtree()
            (self.directory / str(step)).rename(place)
        wait_for_all("damaged checkpoint set aside")
        self._manager.reload()
        return place

    def close(self) -> None:
        """Waits, then releases the manager's threads."""
        try:
            self.wait()
        finally:
            with contextlib.suppress(OSError, ValueError, RuntimeError):  # which `wait` has told
                self._manager.close()

    def _step(self, step: int | None) -> int:
        if step is None and (step := self.latest()) is None:
            raise CheckpointError(f"no complete checkpoint in {self.directory}: train first")
        return step

    def _kept(self, steps: Sequence[int]) -> set[int]:
        """What the retention keeps of some checkpoints."""
        for step in steps:
            if self._retention.best is not None and step not in self._values:
                with contextlib.suppress(CheckpointError):  # one that is damaged has no value
                    self._values[step] = self._meta(step).get("best")
        return self._retention.kept({step: self._values.get(step) for step in steps})

    def _read(self, step: int, item: str, abstract: Arrays, only: str = "") -> Arrays:
        """The arrays of an item whose names begin with `only`, checked."""
        path = self.directory / str(step) / item
        metadata = self._in_all(step, lambda: read_metadata(path))
        saved = {n: tuple(array.shape) for n, array in metadata.items() if n.startswith(only)}
        wanted = {name: tuple(array.shape) for name, array in abstract.items()}
        if saved != wanted:
            raise CheckpointError(
                f"checkpoint {self.directory}/{step} is of another model: "
                f"{_difference(saved, wanted)}; use the config saved beside it"
            )
        sums = self._meta(step).get("checksums", {}).get(item)
        arrays = self._in_all(step, lambda: read_arrays(path, metadata, abstract))
        found = checksums(arrays)

        def check() -> None:
            changed = [name for name in sorted(found) if sums and sums[name] != found[name]]
            if changed:
                raise ValueError(f"{', '.join(changed[:3])} is not what was saved")

        self._in_all(step, check)
        return arrays

    def _in_all(self, step: int, action: Callable[[], Result]) -> Result:
        """What an action gives that reads a checkpoint; an error if it fails in any process."""
        result, reason = None, ""
        try:
            result = action()
        except Exception as error:  # Orbax raises plain Exception for an array cut short
            reason = _reason(error)
        reasons = [text for text in gathered(reason) if text]
        if reasons:
            raise DamagedError(
                f"checkpoint {self.directory}/{step} cannot be read ({reasons[0]}): remove it to "
                "go on from the one before it"
            )
        return result  # type: ignore[return-value]

    def _cannot_write(self, error: Exception) -> CheckpointError:
        latest = self.latest()
        before = "there is none before it" if latest is None else f"that of step {latest} is whole"
        sentence = f"cannot save a checkpoint in {self.directory}: {_reason(error)}; {before}"
        passes = isinstance(error, (OSError, RuntimeError)) and _code(error) not in STAYS
        return PassingError(sentence) if passes else CheckpointError(sentence)


class _Kept:
    """A RetentionConfig as Orbax asks for it."""

    def __init__(self, kept: Callable[[Sequence[int]], set[int]]):
        self._kept = kept

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> Sequence[bool]:
        kept = self._kept([checkpoint.step for checkpoint in checkpoints])
        return [checkpoint.step in kept for checkpoint in checkpoints]


def state_checksums(state: Any) -> dict[str, dict[str, int]]:
    """Of every array of a TrainState, by item and name."""
    return {name: checksums(named(part)) for name, part in _parts(state).items()}


def _parts(state: Any) -> dict[str, Any]:
    """A TrainState, which may be abstract, by the items that it is saved in."""
    return {"state": dataclasses.replace(state, ema=None), "ema": state.ema}


def _digest(meta: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(meta, sort_keys=True).encode()).hexdigest()


def _code(error: Exception) -> int | None:
    """The system's number for what went wrong, out of TensorStore's long account where it is one of
    its."""
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = re.search(r"os_error_code=\W*(\d+)", str(error))
    return int(found[1]) if found else None


def _reason(error: Exception) -> str:
    """What the system said; else the first line."""
    if (code := _code(error)) is not None:
        return os.strerror(code)
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
