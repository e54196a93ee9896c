"""The slices of TPU that Google offers, by name: "v5p-256" is 128 chips, as 4 x 4 x 8, on 32 hosts.

The number counts chips on v5e and v6e, and TensorCores, two a chip, on v5p and tpu7x. Sizes and
hosts: docs.cloud.google.com/kubernetes-engine/docs/concepts/plan-tpus, and for one host of 8 chips
docs.cloud.google.com/tpu/docs/v6e.
"""

import dataclasses
import math

from sora_jax.errors import ConfigError, nearest
from sora_jax.pod.chips import CHIPS, Chip

CORES = {"v5e": 1, "v5p": 2, "v6e": 1, "tpu7x": 2}  # that a chip counts for in a name
# Chips of the largest slice that Google offers; libtpu would describe any.
LARGEST = {"v5e": 256, "v5p": 6144, "v6e": 256, "tpu7x": 9216}
FLAT_SHAPES = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
# Larger slices are built of cubes of 4 x 4 x 4.
IN_A_CUBE = {
    "v5p": ((2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4)),
    "tpu7x": ((1, 1, 1), (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4)),
}
CUBE = 4
# Any number of cubes up to 96 that makes no axis longer than this, and on tpu7x a few more. Held
# against the lists of github.com/AI-Hypercomputer/xpk/blob/main/src/xpk/core/
# system_characteristics.py: the same shapes, but for two of v5p beyond its largest job.
MOST_CUBES = 96
LONGEST_AXIS = 256
BEYOND = {"v5p": (), "tpu7x": (108, 128, 140, 144)}


@dataclasses.dataclass(frozen=True)
class Accelerator:
    """One slice. shape: chips along each axis; what a device can do is in `chip`."""

    name: str
    chip: Chip
    shape: tuple[int, ...]

    @property
    def topology(self) -> str:
        """The chips along each axis, as Kubernetes and libtpu write them: "4x4x8"."""
        return "x".join(map(str, self.shape))

    @property
    def chips(self) -> int:
        """All of the slice's."""
        return math.prod(self.shape)

    @property
    def devices(self) -> int:
        """jax devices: twice the chips on tpu7x."""
        return self.chips * self.chip.devices_per_chip

    @property
    def chips_per_host(self) -> int:
        """Chips that one host, a virtual machine and a process of a run, has."""
        return math.prod(host_shape(self.shape))

    @property
    def hosts(self) -> int:
        """Virtual machines of the slice."""
        return self.chips // self.chips_per_host


def host_shape(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The chips of one host along each axis: 2 x 2, or all of a slice of 2 x 4."""
    return shape if shape == (2, 4) else tuple(map(min, shape, (2, 2, 1)))


def accelerator(name: str) -> Accelerator:
    """The slice that Google calls `name`; `ConfigError` with the nearest name if there is none."""
    name = name.replace("v5litepod-", "v5e-")  # as the Cloud TPU API has it
    if name in ACCELERATORS:
        return ACCELERATORS[name]
    generation, _, number = name.partition("-")
    if generation not in CORES or not number.isdecimal():
        hint = nearest(name, ACCELERATORS) or f"; generations are: {', '.join(CORES)}"
        raise ConfigError(f"there is no accelerator '{name}'{hint}")
    sizes = [int(each.partition("-")[2]) for each in ACCELERATORS if each.startswith(generation)]
    close = min(sizes, key=lambda size: abs(size - int(number)))
    counted = "chips" if CORES[generation] == 1 else "TensorCores, two a chip"
    raise ConfigError(
        f"there is no accelerator '{name}'; did you mean '{generation}-{close}'? "
        f"(the number counts {counted})"
    )


def _shapes(generation: str, axes: int) -> list[tuple[int, ...]]:
    """Every size once, in the shape that is closest to a cube."""
    if axes == 2:
        return list(FLAT_SHAPES)
    beyond = BEYOND[generation]
    cubes = sorted([*range(1, MOST_CUBES + 1), *beyond])
    closest = [_closest_to_a_cube(count) for count in cubes]
    shapes = [tuple(CUBE * length for length in shape) for shape in closest]
    return [*IN_A_CUBE[generation], *(shape for shape in shapes if max(shape) <= LONGEST_AXIS)]


def _closest_to_a_cube(count: int) -> tuple[int, int, int]:
    """Three lengths, in order, of that product and the least sum."""
    found = [
        (a, b, count // a // b)
        for a in range(1, math.isqrt(count) + 1)
        for b in range(a, math.isqrt(count // a) + 1)
        if count % a == 0 and (count // a) % b == 0
    ]
    return min(found, key=sum)


def _all() -> dict[str, Accelerator]:
    found = [
        Accelerator(f"{chip.generation}-{math.prod(shape) * CORES[chip.generation]}", chip, shape)
        for chip in CHIPS
        for shape in _shapes(chip.generation, chip.torus_axes)
    ]
    return {each.name: each for each in found}


ACCELERATORS = _all()
