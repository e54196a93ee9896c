"""Files written beside their place and moved there whole, so that nobody meets half of one."""

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sora_jax.errors import UserError


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


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON for people, in the given order of keys; errors as `write_file`."""
    write_file(path, (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
