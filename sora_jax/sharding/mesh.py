"""MeshConfig -> jax Mesh with the four axes that every sharding in the project speaks of."""

import dataclasses
import math
from collections.abc import Sequence

import jax
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
    slices = len({getattr(device, "slice_index", 0) for device in devices})
    if sizes[0] % slices:
        raise ConfigError(
            f"mesh {config.sizes}: replica={sizes[0]} is no multiple of the {slices} slices, so "
            "another axis would have to cross the network between them"
        )
    inside = (sizes[0] // slices, *sizes[1:])
    if slices == 1:
        array = mesh_utils.create_device_mesh(inside, devices, allow_split_physical_axes=True)
    else:
        array = mesh_utils.create_hybrid_device_mesh(
            inside, (slices, 1, 1, 1), devices, allow_split_physical_axes=True
        )
    return Mesh(array, AXES, axis_types=(AxisType.Auto,) * len(AXES))


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
