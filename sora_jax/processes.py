"""The processes of one run: how they find each other, and that all of them mean the same run.

A launcher says in the environment which of them a process is: SORA_COORDINATOR=HOST:PORT, which is
process 0's, SORA_PROCESSES, and SORA_PROCESS from 0. SORA_PROCESSES=auto leaves that to JAX, which
asks the TPU pod; on GKE, whose pods know the other hosts, it need not be said. Without any of these
a process is alone.
"""

import contextlib
import hashlib
import itertools
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from sora_jax.errors import ConfigError, RestartableError, UserError

COORDINATOR, COUNT, NUMBER = "SORA_COORDINATOR", "SORA_PROCESSES", "SORA_PROCESS"
HOSTS_OF_A_POD = "TPU_WORKER_HOSTNAMES"  # which GKE sets, with a comma between two
JOIN_SECONDS = "SORA_JOIN_SECONDS"  # hosts of a large pod may come minutes apart
DEFAULT_JOIN_SECONDS = 1800
BARRIER_SECONDS = 1800
SHOWN_FIELDS = 5

_barriers = itertools.count()


class DisagreementError(UserError):
    """Processes of one run were started with other settings, data or code."""

    leaves_together = True


class LostError(RestartableError):
    """A process of the run has ended, or hangs."""


def join(environment: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes of the run, where there are any; before JAX is used for anything.

    Raises:
        ConfigError: the environment says something that cannot be.
    """
    several = "," in environment.get(HOSTS_OF_A_POD, "")
    count = environment.get(COUNT, "auto" if several else "1")
    seconds = _positive(environment, JOIN_SECONDS, DEFAULT_JOIN_SECONDS)
    if count == "auto":
        jax.distributed.initialize(initialization_timeout=seconds)
        return
    processes = _positive(environment, COUNT, 1)
    if processes == 1:
        return
    coordinator = environment.get(COORDINATOR, "")
    number = environment.get(NUMBER, "")
    if not coordinator.rpartition(":")[2].isdigit():
        raise ConfigError(f"{COORDINATOR}={coordinator!r} is no HOST:PORT, of process 0")
    if not number.isdigit() or int(number) >= processes:
        raise ConfigError(f"{NUMBER}={number!r} is none of 0 to {processes - 1}")
    jax.distributed.initialize(coordinator, processes, int(number), initialization_timeout=seconds)


def _positive(environment: Mapping[str, str], name: str, default: int) -> int:
    value = environment.get(name, str(default))
    if not value.isdigit() or not int(value):
        raise ConfigError(f"{name}={value!r} is no positive number")
    return int(value)


@contextlib.contextmanager
def told_of_lost_processes(name: str) -> Iterator[None]:
    """Raises LostError for what JAX raises where another process of the run `name` has ended.

    JAX has no error of its own for that; memory that ran out is something else.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if jax.process_count() == 1 or "RESOURCE_EXHAUSTED" in str(error):
            raise
        reason = str(error).splitlines()[0]
        raise LostError(f"{name}: another process of this run has ended: {reason}") from error


def is_first() -> bool:
    """Whether this process is the one that writes what is written once."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Until all processes come by here; all call it with the same `what`.

    Raises:
        LostError: one did not come within BARRIER_SECONDS.
    """
    if jax.process_count() == 1:
        return
    from orbax.checkpoint import multihost  # a second to import, and only here

    try:  # not by the devices, which would wait for ever
        barrier = multihost.get_barrier_sync_fn()
        barrier(key=f"{what} {next(_barriers)}", timeout_ms=1000 * BARRIER_SECONDS)
    except jax.errors.JaxRuntimeError as error:
        raise LostError(f"a process of this run did not come to: {what}") from error


def to_host(array: jax.Array) -> np.ndarray:
    """All of an array on every process, wherever its parts lie; all call it."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def code_id() -> str:
    """12 hex digits over the files of this package, as they are on this machine."""
    package, content = Path(__file__).parent, hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        content.update(str(path.relative_to(package)).encode() + b"\0" + path.read_bytes())
    return content.hexdigest()[:12]


def gathered(text: str) -> list[str]:
    """A text of each process, on all of them; all call it."""
    return [content.decode() for content in gathered_bytes(text.encode())]


def gathered_bytes(content: bytes) -> list[bytes]:
    """What each process has, on all of them; all call it."""
    if jax.process_count() == 1:
        return [content]
    lengths = multihost_utils.process_allgather(np.array([len(content)], np.int32)).reshape(-1)
    padded = np.frombuffer(content.ljust(int(lengths.max()), b"\0"), np.uint8)
    rows = multihost_utils.process_allgather(padded)
    return [bytes(row[:length]) for row, length in zip(rows, lengths, strict=True)]


def agree(settings: Mapping[str, str]) -> None:
    """Stops every process if any has other settings than process 0.

    Raises:
        DisagreementError: names the processes, the settings, and what they are here.
    """
    text = "\n".join(f"{name}\0{value}" for name, value in sorted(settings.items()))
    first, *others = (
        dict(line.split("\0", 1) for line in text.split("\n")) for text in gathered(text)
    )
    found = []
    for number, other in enumerate(others, 1):
        names = sorted(n for n in first.keys() | other.keys() if first.get(n) != other.get(n))
        for name in names[:SHOWN_FIELDS]:
            pair = f"{other.get(name, 'nothing')} in process {number}"
            found.append(f"{name} is {first.get(name, 'nothing')} in process 0 and {pair}")
        if len(names) > SHOWN_FIELDS:
            found.append(f"{len(names) - SHOWN_FIELDS} more differ in process {number}")
    if found:
        raise DisagreementError(f"the processes of this run disagree: {'; '.join(found)}")
