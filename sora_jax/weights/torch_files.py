"""Tensors out of a file of PyTorch without PyTorch; nothing in it is run.

Two formats. That of torch.save before 1.6: five pickles (a magic number, the version, the machine,
the tensors, the keys of their storages), then for each key a count and as many numbers. And that
since: a zip with a pickle of the tensors, data.pkl, and a file of numbers for each storage, data/.
"""

import collections
import dataclasses
import io
import pickle
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from sora_jax.errors import UserError
from sora_jax.weights.checks import check_finite, check_shapes

MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
}


def read_tensors(content: bytes) -> dict[str, np.ndarray]:
    """Of the dict in a file, by name. Raises any exception where the file holds anything else."""
    if zipfile.is_zipfile(io.BytesIO(content)):
        return _of_zip(zipfile.ZipFile(io.BytesIO(content)))
    return _of_pickles(io.BytesIO(content))


def read_checked(
    path: Path, shapes: Mapping[str, tuple[int, ...]]
) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors of a file, which must be those of these shapes.

    Raises:
        UserError: the file is missing or holds anything but tensors; one is missing, of another
            shape or one too many; or it has a number that is not finite.
    """
    try:
        tensors = read_tensors(path.read_bytes())
    except Exception as error:  # what a pickle raises that is none is not listed anywhere
        raise UserError(f"{path} is no file of tensors of PyTorch: {error}") from error
    check_shapes(path, {name: array.shape for name, array in tensors.items()}, shapes)
    for name, array in tensors.items():
        check_finite(path, name, array)
        yield name, array


@dataclasses.dataclass(frozen=True)
class _Tensor:
    """Where a tensor lies in the storage of a key."""

    storage: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    def of(self, storages: Mapping[str, np.ndarray]) -> np.ndarray:
        storage = storages[self.storage][self.offset :]
        steps = [step * (size - 1) for step, size in zip(self.strides, self.shape, strict=True)]
        if self.offset < 0 or min(steps, default=0) < 0 or sum(steps) >= len(storage):
            raise ValueError(f"a tensor {list(self.shape)} reaches beyond its storage")
        strides = [step * storage.itemsize for step in self.strides]
        return np.lib.stride_tricks.as_strided(storage, self.shape, strides).copy()


def _of_zip(archive: zipfile.ZipFile) -> dict[str, np.ndarray]:
    (pickled,) = [name for name in archive.namelist() if name.endswith("data.pkl")]
    folder = pickled.removesuffix("data.pkl")
    reader = _TensorsOnly(io.BytesIO(archive.read(pickled)))
    tensors = reader.load()
    storages = {
        key: np.frombuffer(archive.read(f"{folder}data/{key}"), kind)
        for key, kind in reader.kinds.items()
    }
    return {name: tensor.of(storages) for name, tensor in tensors.items()}


def _of_pickles(file: io.BytesIO) -> dict[str, np.ndarray]:
    if _TensorsOnly(file).load() != MAGIC:
        raise ValueError("it does not begin as one of torch.save")
    for _ in ("version", "machine"):
        _TensorsOnly(file).load()
    reader = _TensorsOnly(file)
    tensors = reader.load()
    storages = {}
    for key in _TensorsOnly(file).load():
        count = int.from_bytes(file.read(8), "little")
        kind = reader.kinds[key]
        storages[key] = np.frombuffer(file.read(count * kind.itemsize), kind)
    return {name: tensor.of(storages) for name, tensor in tensors.items()}


class _TensorsOnly(pickle.Unpickler):
    """Finds nothing but what says where tensors lie; `kinds` are those of storages, by key."""

    def __init__(self, file: io.BytesIO):
        super().__init__(file)
        self.kinds: dict[str, np.dtype[Any]] = {}

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return lambda storage, offset, shape, strides, *_: _Tensor(
                storage, offset, tuple(shape), tuple(strides)
            )
        if module == "torch" and name in STORAGES:
            return STORAGES[name]
        raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is no tensor")

    def persistent_load(self, pid: Any) -> str:
        _, kind, key, *_ = pid
        self.kinds[key] = kind
        return str(key)
