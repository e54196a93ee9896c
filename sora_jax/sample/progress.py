"""What a job of coding a long clip has done, on disk: numbered parts, and the state after them.

A job that was stopped goes on with the part that it was at. All processes of one see the same
directory; the first writes.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from sora_jax.errors import UserError
from sora_jax.files import write_json
from sora_jax.models.vae import State
from sora_jax.processes import is_first, to_host, wait_for_all

JOB, STATE = "job.json", "state.npz"
DONE = "parts"  # beside the arrays of the state, how many parts stand before it


class Progress:
    """Parts 0 to `parts` - 1 are whole, and the state is that after the last of them."""

    def __init__(self, directory: Path, job: Mapping[str, Any]) -> None:
        """Begins `job`, all that decides what the parts hold, or goes on with it.

        Raises:
            UserError: the directory has parts of another job, or what it has cannot be read.
        """
        self.directory = directory
        found = read_json(directory / JOB)
        if found is not None and found != json.loads(json.dumps(job)):
            names = [name for name in job if found.get(name) != job[name]]
            raise UserError(
                f"{directory} holds parts of a job of another {', '.join(names)}: give another "
                "--output, or remove it"
            )
        if found is None and directory.exists() and any(directory.iterdir()):
            raise UserError(f"{directory} is there and holds something else: give another --output")
        self._arrays = _read_state(directory / STATE)
        self.parts = int(self._arrays[DONE]) if self._arrays else 0
        wait_for_all(f"have seen {directory}")  # before anyone writes there
        if is_first():
            for left in directory.glob(".*.partial"):  # by a job that was killed while it wrote
                left.unlink()
            if found is None:
                write_json(directory / JOB, job)

    def part(self, number: int, suffix: str) -> Path:
        """Where a part is, or goes."""
        return self.directory / f"{number:06d}{suffix}"

    def resumed(self, begin: Callable[[], State]) -> State:
        """The state after the parts. `begin` makes one that is split as this is to be."""
        arrays = self._arrays

        def of(number: int, like: jax.Array) -> Any:
            array = arrays[f"{number}"].view(like.dtype)
            if array.shape != like.shape:
                raise UserError(
                    f"{self.directory / STATE} is of another network: remove the folder"
                )
            return jax.device_put(array, like.sharding)

        like = begin()
        leaves = [of(number, leaf) for number, leaf in enumerate(jax.tree.leaves(like))]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def keep(self, state: State) -> None:
        """Says that one part more is whole, with the state after it; all processes call it."""
        self.parts += 1
        arrays = [to_host(leaf) for leaf in jax.tree.leaves(state)]
        if not is_first():
            return
        path = self.directory / STATE
        partial = path.with_name(f".{STATE}.{os.getpid()}.partial")
        # NumPy's files know no bfloat16: bits are kept, and what they mean is the network's matter.
        bits = {f"{i}": array.view(f"u{array.dtype.itemsize}") for i, array in enumerate(arrays)}
        content: Any = bits | {DONE: np.asarray(self.parts)}
        try:
            with partial.open("wb") as file:
                np.savez(file, **content)
            os.replace(partial, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink()
            raise UserError(f"cannot write {path}: {error.strerror}") from error

    def forget_state(self) -> None:
        """Removes what only going on needs; the parts stay."""
        if is_first():
            for name in (STATE, JOB):
                (self.directory / name).unlink(missing_ok=True)

    def remove(self) -> None:
        """Removes all of it."""
        if is_first():
            shutil.rmtree(self.directory)


def read_json(path: Path) -> dict[str, Any] | None:
    """What a file of JSON has, or None if there is none; raises UserError if it cannot be read."""
    try:
        content: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read {path}: {error}") from error
    return content


def _read_state(path: Path) -> dict[str, np.ndarray]:
    if not path.exists():
        return {}
    try:
        with np.load(path) as file:
            return dict(file)
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"cannot read {path}: {error}; remove its folder to begin anew") from error
