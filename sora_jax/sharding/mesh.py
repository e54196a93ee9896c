"""MeshConfig -> jax Mesh with the four axes that every sharding in the project speaks of."""

import dataclasses
import math
from collections.abc import Sequence

import jax
from jax.sharding import Mesh

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
    """Mesh over `devices` (default: all of them) in their given order."""
    devices = jax.devices() if devices is None else list(devices)
    sizes = list(config.sizes)
    if -1 in sizes:
        fixed = -math.prod(sizes)
        if len(devices) % fixed:
            raise ConfigError(
                f"mesh {config.sizes}: {len(devices)} devices do not divide by {fixed}"
            )
        sizes[sizes.index(-1)] = len(devices) // fixed
    if math.prod(sizes) != len(devices):
        raise ConfigError(
            f"mesh {config.sizes} needs {math.prod(sizes)} devices, but {len(devices)} are given"
        )
    return jax.make_mesh(
        tuple(sizes), AXES, devices=devices, axis_types=(jax.sharding.AxisType.Auto,) * len(AXES)
    )
