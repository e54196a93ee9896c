"""Opens a TPU topology on a machine without one: devices to compile for, none to run on.

libtpu describes any slice by its chips along each axis, "v5p:4x4x4", and compiles for it on a CPU.
Its devices go into a mesh as any others do; arguments are then `jax.ShapeDtypeStruct`s with a
sharding over that mesh.
"""

import atexit
import dataclasses
import importlib.util
import math
import os
import re
import shutil
import tempfile

import jax
from jax.experimental import topologies

from sora_jax.errors import ConfigError, nearest
from sora_jax.pod.accelerators import LARGEST, accelerator, host_shape
from sora_jax.pod.chips import GENERATIONS, Chip, chip_of
from sora_jax.pod.stderr import captured_stderr

# libtpu reads these once, when it is loaded; what the user has set stays.
ENVIRONMENT = {
    # There is no TPU machine to ask what it is; without this libtpu waits for an answer.
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5p-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    # Only one process may hold a TPU, but any number may compile.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
    # Its log states the memory of a program (see compiler.py), and only on stderr at once.
    "TPU_MIN_LOG_LEVEL": "0",
    "TPU_STDERR_LOG_LEVEL": "0",
}


@dataclasses.dataclass(frozen=True)
class Topology:
    """A slice, or several alike joined by the data centre's network; `devices` in libtpu's order.

    chips: over all slices; on tpu7x half as many as the devices.
    """

    name: str
    slices: int
    devices: tuple[jax.Device, ...]
    chip: Chip
    chips: int


def open_topology(name: str, slices: int = 1) -> Topology:
    """The topology `name`, such as "v5p:4x4x4" or the accelerator "v5p-128", times `slices`.

    Raises `ConfigError` for a name that is none, where libtpu is missing, and for what libtpu
    refuses, with its reason.
    """
    if "-" in name:
        named = accelerator(name)
        name = f"{named.chip.generation}:{named.topology}"
    chip, shape = _parse(name)
    if slices < 1:
        raise ConfigError(f"a topology has at least one slice, not {slices}")
    if importlib.util.find_spec("libtpu") is None and "TPU_LIBRARY_PATH" not in os.environ:
        raise ConfigError(
            "libtpu, which compiles for a TPU, is not installed; "
            'install it with: pip install "sora_jax[tpu]"'
        )
    _prepare_environment()
    devices = _devices(name, shape, slices)
    chip = chip_of(devices[0].device_kind)
    chips = len(devices) // chip.devices_per_chip
    return Topology(name=name, slices=slices, devices=devices, chip=chip, chips=chips)


def _prepare_environment() -> None:
    for variable, value in ENVIRONMENT.items():
        os.environ.setdefault(variable, value)
    if "TPU_LOG_DIR" not in os.environ:
        # It writes log files too, come what may: into a folder that goes when the process does.
        folder = tempfile.mkdtemp(prefix="libtpu")
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        os.environ["TPU_LOG_DIR"] = folder


def _parse(name: str) -> tuple[Chip, tuple[int, ...]]:
    match = re.fullmatch(r"(\w+):([1-9]\d*(?:x[1-9]\d*)*)", name)
    if match is None:
        raise ConfigError(
            f"'{name}' is no topology: name a generation and the chips along each axis, "
            "as in 'v5p:4x4x4'"
        )
    generation, sizes = match.groups()
    if generation not in GENERATIONS:
        hint = nearest(generation, GENERATIONS) or f"; there are: {', '.join(GENERATIONS)}"
        raise ConfigError(f"topology '{name}': there is no generation '{generation}'{hint}")
    chip = GENERATIONS[generation]
    shape = tuple(int(size) for size in sizes.split("x"))
    if len(shape) != chip.torus_axes:
        raise ConfigError(
            f"topology '{name}': {generation} has {chip.torus_axes} axes, not {len(shape)}"
        )
    if math.prod(shape) > LARGEST[generation]:
        raise ConfigError(
            f"topology '{name}': {math.prod(shape)} chips are more than the {LARGEST[generation]} "
            f"of the largest slice of {generation}"
        )
    return chip, shape


def _devices(name: str, shape: tuple[int, ...], slices: int) -> tuple[jax.Device, ...]:
    """What libtpu makes of the name; its warnings about hosts that are not there stay unsaid."""
    options: dict[str, object] = {
        # libtpu's word for how a slice falls into hosts.
        "chips_per_host_bounds": (*host_shape(shape), 1, 1)[:3],
    }
    if slices > 1:
        options["num_slices"] = slices
    failure: Exception | None = None
    with captured_stderr():
        try:
            description = topologies.get_topology_desc(
                platform="tpu", topology_name=name, **options
            )
        except jax.errors.JaxRuntimeError as error:
            failure = error
    if failure is not None:
        reason = re.sub(r"^[A-Z_]+: ", "", " ".join(str(failure).split()))
        raise ConfigError(f"libtpu does not know the topology '{name}': {reason}") from failure
    return tuple(description.devices)
