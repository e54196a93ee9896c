"""The processes of one run: how they find each other, and that all of them mean the same run.

A launcher says in the environment which of them a process is: SORA_COORDINATOR=HOST:PORT, which is
process 0's, SORA_PROCESSES, and SORA_PROCESS from 0. On TPU pods SORA_PROCESSES=auto leaves that to
JAX, which asks the pod. Without any of these a process is alone.
"""

import os
from collections.abc import Mapping

import jax
import numpy as np
from jax.experimental import multihost_utils

from sora_jax.errors import ConfigError, UserError

COORDINATOR, COUNT, NUMBER = "SORA_COORDINATOR", "SORA_PROCESSES", "SORA_PROCESS"
JOIN_SECONDS = "SORA_JOIN_SECONDS"  # hosts of a large pod may come minutes apart
DEFAULT_JOIN_SECONDS = 1800
SHOWN_FIELDS = 5


class DisagreementError(UserError):
    """Processes of one run were started with other settings, data or code."""


def join(environment: Mapping[str, str] = os.environ) -> None:
    """Joins the other processes of the run, where there are any; before JAX is used for anything.

    Raises:
        ConfigError: the environment says something that cannot be.
    """
    count = environment.get(COUNT, "1")
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


def is_first() -> bool:
    """Whether this process is the one that writes what is written once."""
    return jax.process_index() == 0


def wait_for_all(what: str) -> None:
    """Until all processes come by here. `what`: the same in all, and for nothing else."""
    multihost_utils.sync_global_devices(what)


def to_host(array: jax.Array) -> np.ndarray:
    """All of an array on every process, wherever its parts lie; all call it."""
    if array.is_fully_addressable or array.is_fully_replicated:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def agree(settings: Mapping[str, str]) -> None:
    """Stops every process if any has other settings than process 0.

    Raises:
        DisagreementError: names the processes, the settings, and what they are here.
    """
    if jax.process_count() == 1:
        return
    text = "\n".join(f"{name}\0{value}" for name, value in sorted(settings.items())).encode()
    lengths = multihost_utils.process_allgather(np.array([len(text)], np.int32)).reshape(-1)
    padded = np.frombuffer(text.ljust(int(lengths.max()), b"\0"), np.uint8)
    rows = multihost_utils.process_allgather(padded)
    texts = [bytes(row[:length]).decode() for row, length in zip(rows, lengths, strict=True)]
    first, *others = (dict(line.split("\0", 1) for line in text.split("\n")) for text in texts)
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
