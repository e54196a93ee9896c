"""Arrays out of safetensors, in a file or in a folder as Hugging Face lays it, strict about names.

A folder has one file, or several and an index: <name>.safetensors.index.json, whose `weight_map`
says of every array in which file it lies.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from sora_jax.errors import UserError
from sora_jax.weights.checks import check_finite, check_shapes

SUFFIX = ".safetensors"


def read_arrays(
    path: Path,
    shapes: Mapping[str, tuple[int, ...]],
    ignored: Callable[[str], bool] = lambda name: False,
) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays of these shapes, one by one, so that no more than one need be held; float32,
    float16 or bfloat16 as stored. `ignored` arrays may be there besides.

    Names and shapes are all checked before the first is given, and numbers as they come.

    Raises:
        UserError: a file is missing or damaged; an array is missing, of another shape or one too
            many; or it has a number that is not finite.
    """
    stored = stored_shapes(path)
    found = {n: shape for n, shape in stored.items() if n in shapes or not ignored(n)}
    check_shapes(path, found, shapes)
    return _read(_files(path), shapes)


def stored_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of all arrays of a file or folder, by name; reads no number.

    Raises:
        UserError: a file is missing or damaged.
    """
    found: dict[str, tuple[int, ...]] = {}
    for file in _files(path):
        found |= _shapes(file)
    return found


def _read(files: list[Path], shapes: Mapping[str, tuple[int, ...]]) -> Iterator:
    for path in files:
        with safe_open(path, framework="np") as file:
            for name in file.keys():  # noqa: SIM118, for it is no dict
                if name not in shapes:
                    continue
                array = file.get_tensor(name)
                check_finite(path, name, array)
                yield name, array


def _files(path: Path) -> list[Path]:
    """Of a file itself; of a folder those that its index names, or the only one."""
    if not path.is_dir():
        return [path]
    indices = sorted(path.glob(f"*{SUFFIX}.index.json"))
    files = sorted(path.glob(f"*{SUFFIX}"))
    if len(indices) == 1:
        try:
            names = set(json.loads(indices[0].read_bytes())["weight_map"].values())
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(f"{indices[0]} is no index of files of safetensors") from error
        missing = sorted(names - {file.name for file in files})
        if missing:
            raise UserError(f"{path} has no {missing[0]}, which {indices[0].name} names")
        return sorted(path / name for name in names)
    if len(files) != 1:
        raise UserError(
            f"{path} has {len(files)} files *{SUFFIX} and {len(indices)} indices: it should have "
            "one file, or one index of several"
        )
    return files


def _shapes(path: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(path, framework="np") as file:
            names = file.keys()
            return {name: tuple(file.get_slice(name).get_shape()) for name in names}
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path} is no file of safetensors: {error}") from error
