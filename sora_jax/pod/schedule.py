"""How long each Pallas kernel takes at least, by the schedule that libtpu's compiler made of it.

`estimated_cycles` of a compiled program leaves its Pallas kernels out. But libtpu writes down what
each core issues in every cycle, and `bundles.py` counts that. It is a lower bound on the time of a
kernel that does all its blocks: it knows no waiting, neither for memory nor for other chips, and
takes a step of the grid to be neither the first nor the last of a sum. Blocks that a kernel skips
by what it reads, such as those above a causal mask, it counts too. Good for choosing block sizes,
and for a floor under a step's time.

libtpu reads the flag that makes it write once, when it loads; so a child process compiles. A kernel
that takes seconds to compile is asked for again and again, so the counts are kept on disk.
"""

import dataclasses
import hashlib
import importlib
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sora_jax.errors import ConfigError
from sora_jax.pod.bundles import KernelCycles, count_cycles
from sora_jax.pod.compiler import Options, OutOfMemory, compile_for
from sora_jax.pod.topology import open_topology

# Part of the key of what is kept: raise it when the same bundles are counted otherwise.
COUNTING = 1
# One line a cycle, after registers are assigned; of some seventy passes the only one to be written.
PASS = "packed-bundles-post-ra"
RESULT = "result.json"
CHILD = "from sora_jax.pod import schedule; schedule.compile_request()"


@dataclasses.dataclass(frozen=True)
class Probe:
    """What to compile, as data that another process can read.

    make: "package.module:function"; called with `arguments`, plain JSON values, it returns a
    function and the abstract arguments to compile it for, as (function, arguments).
    """

    make: str
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class ProbeFailed(RuntimeError):
    """The child could not compile the probe; carries the end of what it wrote."""


def kernel_cycles(
    probe: Probe, topology: str, cache: Path, options: Options = MappingProxyType({})
) -> dict[str, KernelCycles]:
    """Cycles of each Pallas kernel of the probe on one device of the topology, by kernel name.

    The name is that of the `pallas_call`; where one name stands for kernels whose cycles differ,
    each keeps the number of its operation. On v5p both cores of a device share a grid, if its
    semantics allow; cycles are then those of one, so of the kernel. Raises `OutOfMemory` for a
    kernel whose blocks do not fit VMEM. `cache` is a directory, made if missing.
    """
    request = {
        "make": probe.make,
        "arguments": dict(probe.arguments),
        "topology": topology,
        "options": dict(options),
    }
    kept = cache / f"{_key(request)}.json"
    if not kept.exists():
        counted = _compile_in_child(request)
        text = json.dumps({"request": request, "kernels": counted}, indent=1)
        cache.mkdir(parents=True, exist_ok=True)
        # Two processes may write it: each writes a file of its own, and the last one stays.
        partial = kept.with_suffix(f".{os.getpid()}")
        partial.write_text(text, encoding="utf-8")
        partial.replace(kept)
    kernels = json.loads(kept.read_text(encoding="utf-8"))["kernels"]
    return {name: KernelCycles(**figures) for name, figures in kernels.items()}


def _key(request: Mapping[str, Any]) -> str:
    """A fingerprint of all that the schedule depends on: the kernels as lowered, and the compiler.

    It holds where the kernels stand in their files, so moving them asks for a new count.
    """
    text, generation = _lower(request)
    parts = {
        "program": text.as_text(),
        "generation": generation,
        "options": request["options"],
        "flags": os.environ.get("LIBTPU_INIT_ARGS", ""),
        "libtpu": importlib.metadata.version("libtpu"),
        "jax": jax.__version__,
        "counting": COUNTING,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:20]


def _lower(request: Mapping[str, Any]) -> tuple[jax.stages.Lowered, str]:
    """The probe of a request, lowered for one device of its topology; and the generation."""
    topology = open_topology(request["topology"])
    mesh = Mesh(np.array(topology.devices[:1]), ("device",))
    sharding = NamedSharding(mesh, PartitionSpec())
    function, arguments = _make(request["make"])(**request["arguments"])
    # By the mesh that is set a function can tell what it is compiled for.
    with jax.set_mesh(mesh):
        jitted = jax.jit(function, in_shardings=sharding, out_shardings=sharding)
        return jitted.lower(*arguments), topology.chip.generation


def _make(name: str) -> Any:
    module, _, function = name.partition(":")
    try:
        return getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"there is no probe '{name}' ({error}); name it as package.module:function"
        ) from error


def _compile_in_child(request: Mapping[str, Any]) -> dict[str, dict[str, int]]:
    """Compile the request where libtpu writes its bundles, and count them."""
    with tempfile.TemporaryDirectory(prefix="bundles") as folder:
        flags = (
            os.environ.get("LIBTPU_INIT_ARGS", ""),
            f"--xla_jf_dump_to={folder}",
            "--xla_jf_dump_llo_text=true",
            f"--xla_jf_dump_llo_pass_label_regex={PASS}",
        )
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "LIBTPU_INIT_ARGS": " ".join(flags).strip(),
            # The probe may stand wherever this process finds it.
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        }
        child = subprocess.run(
            [sys.executable, "-c", CHILD],
            input=json.dumps({**request, "folder": folder}),
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        result = Path(folder) / RESULT
        if child.returncode or not result.exists():
            end = "\n".join(child.stderr.splitlines()[-20:])
            raise ProbeFailed(f"compiling the probe {request['make']} failed:\n{end}")
        answer = json.loads(result.read_text(encoding="utf-8"))
        if "shortage" in answer:
            raise OutOfMemory(**answer["shortage"])
        return _count(Path(folder), answer["kernels"])


def compile_request() -> None:
    """What the child does: compile the request on stdin, and leave its kernels' names in a file."""
    request = json.load(sys.stdin)
    lowered, _ = _lower(request)
    answer: dict[str, Any] = {}
    try:
        text = compile_for(lowered, request["options"]).compiled.as_text() or ""
        answer["kernels"] = re.findall(
            r"^\s*(?:ROOT )?%?(\S+) = .*custom_call_target=\"tpu_custom_call\"", text, re.MULTILINE
        )
    except OutOfMemory as error:
        answer["shortage"] = {
            name: getattr(error, name) for name in ("space", "needed", "available", "kernel")
        }
    (Path(request["folder"]) / RESULT).write_text(json.dumps(answer), encoding="utf-8")


def _count(folder: Path, operations: list[str]) -> dict[str, dict[str, int]]:
    """The counts of the kernels among the files that libtpu wrote, one or more for each program.

    Of calls that are alike in all, libtpu compiles and writes one.
    """
    counts: dict[str, KernelCycles] = {}
    for operation in operations:
        files = list(folder.glob(f"*-{operation}-*-{PASS}.txt"))
        files = [file for file in files if "schedule-analysis" not in file.name]
        if files:
            counts[operation] = count_cycles(files[0].read_text(encoding="utf-8", errors="replace"))
    missing = {_stem(name) for name in operations} - {_stem(name) for name in counts}
    if missing:
        raise ProbeFailed(f"libtpu wrote no schedule of the kernel {', '.join(sorted(missing))}")
    names = {_stem(name): name for name in counts}
    ambiguous = {
        _stem(name) for name, count in counts.items() if count != counts[names[_stem(name)]]
    }
    return {
        name if _stem(name) in ambiguous else _stem(name): dataclasses.asdict(count)
        for name, count in counts.items()
    }


def _stem(operation: str) -> str:
    """The kernel's name without the number of its operation: "matmul" of "matmul.3"."""
    return re.sub(r"\.\d+$", "", operation)
