"""What arrays of other projects are held to: names and shapes, and finite numbers."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sora_jax.errors import UserError

Shapes = Mapping[str, tuple[int, ...]]


def check_shapes(path: Path, found: Shapes, expected: Shapes) -> None:
    """Raises UserError if an array is missing, of another shape, or one too many."""
    for name in sorted(expected.keys() | found.keys()):
        if found.get(name) != expected.get(name):
            raise UserError(
                f"{path} is of another model: {name} is {found.get(name, 'missing')}, for "
                f"{expected.get(name, 'nothing of this name')}"
            )


def check_finite(path: Path, name: str, array: np.ndarray) -> None:
    """Raises UserError if an array has NaN or infinity."""
    if not np.isfinite(array.astype(np.float32)).all():
        raise UserError(f"{path}: {name} has numbers that are not finite")
