"""MeshConfig -> jax Mesh with the four axes that every sharding in the project speaks of."""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh

from sora_jax.config import ConfigError

AXES = ("replica", "fsdp", "context", "tensor")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Sizes of the mesh axes. At most one may be -1: it takes the devices that are left.

    replica: whole copies of the model, across slices (DCN). fsdp: parameters and rows of the batch
    are split. context: tokens of a row are split. tensor: heads and hidden widths are split.
    """

    replica: int = 1
    fsdp: int = -1
    context: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        sizes = self.sizes
        if any(size == 0 or size < -1 for size in sizes):
            raise ConfigError(f"mesh {sizes}: an axis size must be positive, or -1 for the rest")
        if sizes.count(-1) > 1:
            raise ConfigError(f"mesh {sizes}: at most one axis may be -1")

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        return (self.replica, self.fsdp, self.context, self.tensor)


def make_mesh(config: MeshConfig, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Mesh over `devices` (default: all of them), laid over the links between them.

    Of several slices, each holds whole replicas, so that only `replica` is crossed by the network
    between slices (DCN).

    Raises:
        ConfigError: the sizes do not fit the devices, or a replica would span slices.
    """
    devices = jax.devices() if devices is None else list(devices)
    sizes = _resolved(config, len(devices))
    slices = len(_slices(devices))
    if sizes[0] % slices:
        raise ConfigError(
            f"mesh {config.sizes}: replica={sizes[0]} is no multiple of the {slices} slices, so "
            "another axis would have to cross the network between them"
        )
    inside = (sizes[0] // slices, *sizes[1:])
    array = np.concatenate([_laid_out(inside, each) for each in _slices(devices)])
    return Mesh(array, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def sharing_a_row(context: int, at_most: int | None) -> int:
    """Devices of a `context` axis that share a row, where at most so many are to: as many as divide
    both, and so the row's tokens."""
    return context if at_most is None else math.gcd(context, at_most)


def mesh_for_rows(mesh: Mesh, at_most: int | None) -> Mesh:
    """The devices of `mesh` in its order, of which `at_most` share a row.

    The rest of its context axis goes to `fsdp` and takes rows of its own. Parameters are split over
    both, so that they lie where they lay.
    """
    replica, fsdp, context, tensor = (mesh.shape[name] for name in AXES)
    sharing = sharing_a_row(context, at_most)
    if sharing == context:
        return mesh
    shape = (replica, fsdp * context // sharing, sharing, tensor)
    return Mesh(mesh.devices.reshape(shape), AXES, axis_types=mesh.axis_types)


def device_kind() -> str:
    """What the devices are that a program is traced for: those of the mesh that is set, which need
    not exist, or else of this machine."""
    device = jax.sharding.get_abstract_mesh().abstract_device
    return str(device.device_kind if device is not None else jax.devices()[0].device_kind)


def picture_mesh(mesh: Mesh, rows: int, height: int, width: int) -> Mesh:
    """The devices of `mesh` in its order, for a batch of clips whose pictures are split.

    Clips come apart over `replica` first. The devices left to each split its height over `fsdp` and
    its width over `context`, counted in latent cells: over as many devices as divide them, in the
    way that has the shortest edges, which is what devices exchange. Those that are left even then
    stand along `tensor` and do the same as another.
    """
    replica = math.gcd(rows, mesh.size)
    left = mesh.size // replica
    ways = [
        (down, across)
        for down in range(1, left + 1)
        for across in range(1, left // down + 1)
        if left % (down * across) == 0 and height % down == 0 and width % across == 0
    ]
    down, across = max(ways, key=lambda way: (way[0] * way[1], -height / way[0] - width / way[1]))
    shape = (replica, down, across, left // (down * across))
    return Mesh(mesh.devices.reshape(shape), AXES, axis_types=mesh.axis_types)


def _slices(devices: Sequence[jax.Device]) -> list[list[jax.Device]]:
    """Devices of each slice, in the order of their numbers; without slices all are one."""
    found: dict[int, list[jax.Device]] = {}
    for device in devices:
        found.setdefault(getattr(device, "slice_index", None) or 0, []).append(device)
    return [found[number] for number in sorted(found)]


def _laid_out(sizes: tuple[int, ...], devices: list[jax.Device]) -> np.ndarray:
    """Devices of one slice, so that an axis of the mesh is whole axes of the torus.

    Where that is not possible it is a box over as many torus axes as it can: 4 chips of 8 x 8 x 16
    are 2 x 2, which has twice the links of a line of 4.
    """
    try:
        return np.asarray(mesh_utils.create_device_mesh(sizes, devices))
    except NotImplementedError:  # says that a torus axis has to be split
        torus = _torus(devices)
    taken = _boxes(sizes, torus.shape)
    axes, places = len(sizes), range(torus.ndim)
    # Each axis of the torus comes apart into its part of every axis of the mesh, the first slowest.
    parts = torus.reshape([taken[axis][place] for place in places for axis in range(axes)])
    order = [place * axes + axis for axis in range(axes) for place in places]
    return parts.transpose(order).reshape(sizes)


def _torus(devices: list[jax.Device]) -> np.ndarray:
    """Devices by their place: coordinates of the chip, then the core."""
    places = np.array([(*device.coords, device.core_on_chip) for device in devices])
    places -= places.min(0)
    array = np.empty(places.max(0) + 1, dtype=object)
    for place, device in zip(places, devices, strict=True):
        array[tuple(place)] = device
    return array


def _boxes(sizes: tuple[int, ...], torus: tuple[int, ...]) -> list[list[int]]:
    """How much of each torus axis each mesh axis takes, the last, which talks most, first."""
    left = list(torus)
    boxes = []
    for size in reversed(sizes):
        box = [1] * len(torus)
        while (rest := size // math.prod(box)) > 1:
            factor = next(number for number in range(2, rest + 1) if rest % number == 0)
            fitting = [place for place, length in enumerate(left) if length % factor == 0]
            place = min(fitting, key=lambda place: (box[place], -left[place]))
            box[place] *= factor
            left[place] //= factor
        boxes.append(box)
    return boxes[::-1]


def _resolved(config: MeshConfig, count: int) -> list[int]:
    """Sizes of all axes over so many devices, none of them -1."""
    sizes = list(config.sizes)
    if -1 in sizes:
        fixed = -math.prod(sizes)
        if count % fixed:
            raise ConfigError(f"mesh {config.sizes}: {count} devices do not divide by {fixed}")
        sizes[sizes.index(-1)] = count // fixed
    if math.prod(sizes) != count:
        raise ConfigError(
            f"mesh {config.sizes} needs {math.prod(sizes)} devices, but {count} are given"
        )
    return sizes
