"""Compiles a lowered program for a TPU topology and says what memory it takes, or by how much not.

libtpu states the memory that it will really reserve in its log; `memory_analysis()` of a compiled
program counts fragmentation twice (39 GiB where 27 are reserved). So the log is captured and read.
"""

import contextlib
import dataclasses
import re
import time
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import NoReturn

import jax
from jax.experimental.compilation_cache import compilation_cache

from sora_jax.errors import ConfigError, UserError
from sora_jax.pod.stderr import captured_stderr, write_stderr

Options = Mapping[str, str | bool | int]

# The log's last line of a compilation.
COMPILED = "END_TO_END stage duration"
# A size in the log: 968.00M, 1.67G, 512B. The units are binary.
SIZE = r"[\d.]+[KMGT]?"
UNITS = {"K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
# The ways in which libtpu says that memory is too small, from the most telling to the least.
SHORTAGES = (
    # The program as a whole.
    rf"\((?P<needed>{SIZE})\) exceeds available HBM \((?P<available>{SIZE})\)",
    # A kernel's blocks and temporaries are more than it may take of VMEM.
    r"memory space (?P<space>\w+) while allocating on stack for %(?P<kernel>\S+) = "
    rf".*?size (?P<needed>{SIZE}) and limit (?P<available>{SIZE}) exceeded",
    # One block is larger than all of VMEM.
    rf"\(size=(?P<needed>{SIZE})\) would exceed memory \(size=(?P<available>{SIZE})\)"
    r".*space=(?P<space>\w+).* :: (?P<kernel>\S+)",
    # Together they are.
    rf"memory space (?P<space>\w+)\. Used (?P<needed>{SIZE}) of (?P<available>{SIZE})"
    r"(?:.* in HLO :: (?P<kernel>\S+))?",
)
CACHE_SETTING = "jax_enable_compilation_cache"


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes per device, as the log rounds them: to a hundredth of its KiB, MiB or GiB.

    total: all HBM, of which reserved is libtpu's own, program is temporaries and code, arguments
    is what the program is given, and outputs is what it returns beside donated arguments.
    unpadded: the temporaries without the padding of tiles and without fragmentation. host: pinned
    memory of the host. vmem: on-chip memory.
    logged: False for a program so small that libtpu logs no memory (some ten thousand bundles); its
    figures are `memory_analysis()`, with reserved and vmem unknown and given as 0.
    """

    total: int
    reserved: int
    program: int
    arguments: int
    outputs: int
    unpadded: int
    host: int
    vmem: int
    logged: bool


@dataclasses.dataclass(frozen=True)
class Compilation:
    """A program compiled for a topology. log: all that libtpu wrote meanwhile."""

    compiled: jax.stages.Compiled
    memory: Memory
    seconds: float
    log: str


class OutOfMemory(UserError):
    """The program does not fit its chip. An answer more than an error: it carries the figures.

    space: "hbm", or an on-chip memory, "vmem" or "smem". needed, available: bytes of it per device;
    available is without what libtpu reserves. kernel: the operation whose blocks and temporaries
    overflow an on-chip memory. log: as in `Compilation`.
    """

    def __init__(
        self,
        space: str,
        needed: int,
        available: int,
        kernel: str | None = None,
        log: str = "",
    ) -> None:
        whose = f"the kernel {kernel}" if kernel else "the program"
        super().__init__(
            f"{whose} needs {_in_words(needed)} of {space.upper()} on each device, "
            f"and {_in_words(available)} are there"
        )
        self.space = space
        self.needed = needed
        self.available = available
        self.kernel = kernel
        self.log = log


def compile_for(
    lowered: jax.stages.Lowered, options: Options = MappingProxyType({})
) -> Compilation:
    """Compile what was lowered for a topology's devices; `options` are XLA flags without dashes.

    Raises `OutOfMemory` if it does not fit, and whatever else libtpu raises, with its log written
    to stderr. jax remembers programs in two ways, and a remembered one is not compiled and leaves
    no log: the cache on disk is switched off meanwhile, the one in memory emptied if it answered.
    """
    with _no_cache_on_disk():
        compiled, seconds, log = _compile(lowered, options)
        if COMPILED not in log:
            jax.clear_caches()
            compiled, seconds, log = _compile(lowered, options)
    if COMPILED not in log:
        raise ConfigError(
            "libtpu logged nothing about the compilation: open the topology before anything else "
            "loads libtpu, and leave TPU_MIN_LOG_LEVEL and TPU_STDERR_LOG_LEVEL unset or 0"
        )
    memory = _logged_memory(log) or _analysed_memory(compiled)
    return Compilation(compiled=compiled, memory=memory, seconds=seconds, log=log)


def _compile(
    lowered: jax.stages.Lowered, options: Options
) -> tuple[jax.stages.Compiled, float, str]:
    flags = {
        name: value if isinstance(value, bool) else str(value) for name, value in options.items()
    }
    failure: jax.errors.JaxRuntimeError | None = None
    start = time.perf_counter()
    with captured_stderr() as captured:
        try:
            # Given None in place of {}, `lowered` would keep its first executable for good.
            compiled = lowered.compile(compiler_options=flags)
        except jax.errors.JaxRuntimeError as error:
            failure = error
    if failure is not None:
        _raise(failure, captured.text)
    return compiled, time.perf_counter() - start, captured.text


def _raise(failure: jax.errors.JaxRuntimeError, log: str) -> NoReturn:
    """Raise the failure as `OutOfMemory` if it is that, or as it is, after its log."""
    shortage = _shortage(str(failure), log)
    if shortage is not None:
        raise shortage from failure
    write_stderr(log)
    raise failure


@contextlib.contextmanager
def _no_cache_on_disk() -> Iterator[None]:
    """Compile without jax's persistent cache.

    Its setting is read once, at the first compilation of the process, so each change of it needs a
    reset. (As things are, jax writes such programs to its cache and then fails to read them.)
    """
    before = jax.config.values[CACHE_SETTING]
    jax.config.update(CACHE_SETTING, False)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        jax.config.update(CACHE_SETTING, before)
        compilation_cache.reset_cache()


def _shortage(message: str, log: str) -> OutOfMemory | None:
    """What a failure says of memory, or None if it is another failure."""
    if "RESOURCE_EXHAUSTED" not in message:
        return None
    for pattern in SHORTAGES:
        match = re.search(pattern, message, re.DOTALL)
        if match is not None:
            parts = match.groupdict()
            space = parts.get("space", "hbm")
            needed, available = _bytes(parts["needed"]), _bytes(parts["available"])
            return OutOfMemory(space, needed, available, parts.get("kernel"), log)
    return None


def _logged_memory(log: str) -> Memory | None:
    """The figures of the last program of the log, or None if it has none.

    libtpu's own total leaves out the outputs, which take their place all the same.
    """
    start = log.rfind("Total hbm usage >=")
    if start < 0:
        return None
    summary = log[start:]
    hbm = summary.partition("Total host usage")[0]
    temporaries = re.search(r"Program hbm requirement.*?(?=\nProgram |\n[IWE]\d|\Z)", summary, re.S)
    reserved, program, arguments = (
        _size(rf"{part}\s+({SIZE})", hbm) for part in ("reserved", "program", "arguments")
    )
    outputs = _size(f"Output size ({SIZE})", hbm) - _size(f"shares ({SIZE})", hbm)
    return Memory(
        total=reserved + program + arguments + outputs,
        reserved=reserved,
        program=program,
        arguments=arguments,
        outputs=outputs,
        unpadded=_size(rf"Unpadded \(({SIZE})", temporaries[0] if temporaries else ""),
        host=_size(f"Total host usage >= ({SIZE})", summary),
        vmem=_size(f"Program vmem requirement ({SIZE})", summary),
        logged=True,
    )


def _analysed_memory(compiled: jax.stages.Compiled) -> Memory:
    analysis = compiled.memory_analysis()
    if analysis is None:
        raise ConfigError("the compiled program has no memory analysis; is it one for TPUs?")
    program = analysis.temp_size_in_bytes + analysis.generated_code_size_in_bytes
    outputs = analysis.output_size_in_bytes - analysis.alias_size_in_bytes
    host = analysis.host_argument_size_in_bytes + analysis.host_temp_size_in_bytes
    return Memory(
        total=program + analysis.argument_size_in_bytes + outputs,
        reserved=0,
        program=program,
        arguments=analysis.argument_size_in_bytes,
        outputs=outputs,
        unpadded=analysis.temp_size_in_bytes,
        host=host,
        vmem=0,
        logged=False,
    )


def _size(pattern: str, text: str) -> int:
    """The first size that the pattern finds, in bytes; 0 if there is none."""
    match = re.search(pattern, text)
    return _bytes(match[1]) if match else 0


def _bytes(size: str) -> int:
    number, unit = (size[:-1], size[-1]) if size[-1] in UNITS else (size, "")
    return round(float(number) * UNITS.get(unit, 1))


def _in_words(size: int) -> str:
    unit, divisor = ("GiB", 2**30) if size >= 2**30 else ("MiB", 2**20)
    return f"{size / divisor:.2f} {unit}"
