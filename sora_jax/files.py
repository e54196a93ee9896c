"""Files written beside their place and moved there whole, so that nobody meets half of one."""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sora_jax.errors import UserError


def local_path(name: str) -> Path:
    """A path of this machine. Raises UserError for an address: Path would take it for a folder."""
    if "://" in name:
        raise UserError(
            f"{name} is no path of this machine: mount the bucket, as `launch.gke --bucket` does, "
            "and name where it is mounted"
        )
    return Path(name)


def write_file(path: Path, content: bytes) -> None:
    """Writes a file whole, or leaves what was there.

    Raises:
        UserError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise UserError(f"cannot write {path}: {error.strerror}") from error


@contextlib.contextmanager
def writing(path: Path) -> Iterator[str]:
    """Name of a file to write, which stands at `path` once it is whole.

    Raises:
        UserError: it cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield str(partial)
        os.replace(partial, path)
    except OSError as error:  # PyAV's are of that kind too
        raise UserError(f"cannot write {path}: {error.strerror}") from error
    finally:
        partial.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON for people, in the given order of keys; errors as `write_file`."""
    write_file(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())


def keep_lines(path: Path, step: int) -> None:
    """Drops from a file of JSON lines those of steps after `step`, which a run that goes on from
    there will write again, and one that a kill cut short."""
    if not path.exists():
        return
    lines = path.read_text().splitlines(keepends=True)
    whole = [line for line in lines if line.endswith("\n")]
    kept = "".join(line for line in whole if json.loads(line)["step"] <= step)
    write_file(path, kept.encode())
