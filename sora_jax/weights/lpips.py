"""Weights of LPIPS, read from PyTorch's files without PyTorch."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from sora_jax.errors import UserError
from sora_jax.models.lpips import CONVOLUTIONS, LPIPS, Pooling, weight_shapes
from sora_jax.weights.published import Published, content_of, named, weights_file
from sora_jax.weights.torch_files import read_tensors

# On PyPI as stlpips-pytorch. Its distances are not those of LPIPS v0.1, whose trunk classified
# ImageNet. This one's kernels still have the deviations of a random start, sqrt(2 / (9 outputs)),
# within a sixth, so it seems to have learned from judgements of people about pairs alone.
ST_LPIPS_VGG = Published(
    network="LPIPS of VGG16",
    family="st-lpips-vgg",
    name="st-lpips-vgg",
    package="stlpips_pytorch",
    file="weights/vST0.0/vgg_shift_tolerant.pth",
    sha256="44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250",
)
# What files have besides: constants, the same heads again, and the layers that VGG16 classifies by.
IGNORED = re.compile(r"scaling_layer\.|lins\.|classifier\.|.*\.filt$")
LAYERS_BETWEEN: Mapping[Pooling, int] = {"max": 1, "blurred": 2}  # of two stages


@dataclasses.dataclass(frozen=True, eq=False)
class NamedLPIPS:
    """A network, the sha256 of its weights, and the name that its distances have in metrics."""

    model: LPIPS
    sha256: str
    name: str


def load_lpips(given: str = "") -> NamedLPIPS:
    """LPIPS of the file or folder that the user gives, or of the weights that a package brings.

    Raises:
        UserError: there are no weights, or they are not of LPIPS.
    """
    return read_lpips(weights_file(ST_LPIPS_VGG, given))


def read_lpips(path: Path) -> NamedLPIPS:
    """LPIPS of a file of torch.save, or of all files *.pth of a folder together.

    Trunk and heads may lie in one dict, as in the package `stlpips-pytorch` or in the state of
    `lpips.LPIPS(net="vgg")`, or in two: torchvision's VGG16, and the heads of the package `lpips`.
    Where the second stage begins tells how the network halves pictures.

    Raises:
        UserError: a file cannot be read or holds anything but tensors; they are of another network
            or not finite.
    """
    files = sorted(path.glob("*.pth")) if path.is_dir() else [path]
    if not files:
        raise UserError(f"{path} has no files *.pth of weights of {ST_LPIPS_VGG.network}")
    contents = [content_of(file, ST_LPIPS_VGG) for file in files]
    tensors: dict[str, np.ndarray] = {}
    for file, content in zip(files, contents, strict=True):
        try:
            tensors |= read_tensors(content)
        except Exception as error:  # what a pickle raises that is none is not listed anywhere
            raise UserError(f"{file} is no file of tensors of PyTorch: {error}") from error
    tensors = {name: array for name, array in tensors.items() if not IGNORED.match(name)}

    pooling: Pooling = "blurred" if "net.slice2.6.weight" in tensors else "max"
    slices = not any(name.startswith("features.") for name in tensors)
    names = dict(_names(pooling, slices))
    published = ST_LPIPS_VGG
    if pooling == "max":
        published = dataclasses.replace(published, family="lpips-vgg")
    shapes = {names[name]: _shape_in_torch(shape, name) for name, shape in weight_shapes().items()}
    read = named(path, b"".join(contents), tensors, shapes, published)
    arrays = {own: _as_ours(read.arrays[name], own) for own, name in names.items()}
    for own, array in arrays.items():
        if not np.isfinite(array).all():
            raise UserError(f"{path}: {names[own]} has numbers that are not finite")
    return NamedLPIPS(LPIPS(arrays, pooling), read.sha256, read.name)


def _names(pooling: Pooling, slices: bool) -> Iterator[tuple[str, str]]:
    """Our name of every array and that in files: a list of layers where each convolution is
    followed by its ReLU, either in slices by stage or all in `features`."""
    layer = 0
    for stage, count in enumerate(CONVOLUTIONS, 1):
        for number in range(1, count + 1):
            place = f"net.slice{stage}.{layer}" if slices else f"features.{layer}"
            yield f"conv{stage}_{number}/kernel", f"{place}.weight"
            yield f"conv{stage}_{number}/bias", f"{place}.bias"
            layer += 2
        layer += LAYERS_BETWEEN[pooling]
        yield f"head{stage}", f"lin{stage - 1}.model.1.weight"


def _shape_in_torch(shape: tuple[int, ...], name: str) -> tuple[int, ...]:
    """Kernels are [o i 3 3] there, and heads kernels of one output and one cell."""
    if name.startswith("head"):
        return (1, *shape, 1, 1)
    return shape[::-1][:2] + shape[:2] if len(shape) == 4 else shape


def _as_ours(array: np.ndarray, name: str) -> np.ndarray:
    if name.startswith("head"):
        return array.reshape(-1)
    return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array
