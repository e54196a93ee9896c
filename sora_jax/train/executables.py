"""Compiled programs on disk: jax's own cache, and executables that were made before a launch."""

import hashlib
import importlib.metadata
import os
import pickle
from collections.abc import Sequence
from pathlib import Path

import jax
from jax.experimental import serialize_executable

from sora_jax.errors import UserError
from sora_jax.train.compiler_options import OPTIONS

CACHE = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "sora_jax/programs"
WORTH_KEEPING = 0.2  # seconds of compilation
# Kernels carry the names of the files they are written in: as they are within a package, a program
# is the same wherever the packages are installed.
PLACE_OF_A_PACKAGE = r"^.*/(?=(sora_jax|site-packages)/)"


def keep_on_disk() -> None:
    """Has programs kept from one start of a process to the next, under ~/.cache unless jax is told
    of another place (JAX_COMPILATION_CACHE_DIR, which may be gs://)."""
    jax.config.update("jax_hlo_source_file_canonicalization_regex", PLACE_OF_A_PACKAGE)
    if jax.config.values["jax_compilation_cache_dir"] is None:
        jax.config.update("jax_compilation_cache_dir", str(CACHE))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)


class Executables:
    """A directory of executables for some devices, which need not be here to save them.

    A file is found by all that decides what is in it: the lowered program, the versions of jax and
    of the compiler, what that is told, the devices and where they stand, and the flags. Loading
    runs what is in the file, so that the directory must be as trusted as the code.
    """

    def __init__(self, directory: str | Path, devices: Sequence[jax.Device]):
        """Raises UserError if there is no such directory."""
        self._directory, self._devices = Path(directory), tuple(devices)
        self._found: list[Path] = []
        if not self._directory.is_dir():
            raise UserError(
                f"{directory}: there is no such directory of executables; make it first"
            )

    @property
    def loaded(self) -> int:
        """How many were loaded so far."""
        return len(self._found)

    def save(self, lowered: jax.stages.Lowered, compiled: jax.stages.Compiled) -> Path:
        """Keeps what was compiled from `lowered`."""
        content, _, _ = serialize_executable.serialize(compiled)
        path = self._path(lowered)
        partial = path.with_suffix(f".{os.getpid()}")
        partial.write_bytes(content)
        return partial.replace(path)

    def load(self, lowered: jax.stages.Lowered) -> jax.stages.Compiled | None:
        """What was kept for `lowered`, or None.

        Raises:
            UserError: the file is broken.
        """
        path = self._path(lowered)
        if not path.exists():
            return None
        try:
            loaded = serialize_executable.deserialize_and_load(
                path.read_bytes(),
                lowered.in_tree,
                lowered.out_tree,
                backend=self._devices[0].client,
                execution_devices=self._devices,
            )
        except (jax.errors.JaxRuntimeError, pickle.UnpicklingError, EOFError) as error:
            raise UserError(f"{path} is broken ({error}): delete it, and compile again") from error
        self._found.append(path)
        return loaded

    def _path(self, lowered: jax.stages.Lowered) -> Path:
        client = self._devices[0].client
        made_of = [
            lowered.as_text(),
            jax.__version__,
            importlib.metadata.version("jaxlib"),
            client.platform_version,
            str(OPTIONS.get(client.platform)),
            *(os.environ.get(name, "") for name in ("XLA_FLAGS", "LIBTPU_INIT_ARGS")),
            *(
                f"{device.id} {device.device_kind} {getattr(device, 'coords', None)} "
                f"{getattr(device, 'core_on_chip', None)}"
                for device in self._devices
            ),
        ]
        key = hashlib.sha256("\n".join(made_of).encode()).hexdigest()
        return self._directory / f"{key[:32]}.executable"
