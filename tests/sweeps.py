"""Planned runs that cost nothing, and a process that pretends to train one."""

import os
import signal
import sys
import time
from pathlib import Path

from sora_jax.errors import UserError
from sora_jax.scaling.lease import Lease
from sora_jax.scaling.plan import PlannedRun
from sora_jax.scaling.queue import Queue
from sora_jax.scaling.queue_files import checkpoints, saved
from sora_jax.scaling.records import RunRecord
from sora_jax.scaling.worker import (
    NOTHING_LEFT,
    Attempt,
    conclude,
    leave_with_worker,
    lost,
    work,
    worker_name,
)
from tests.processes import CHECKOUT

STEPS, SAVE_EVERY = 12, 3
TRAINED = "trained.txt"


def planned(number: int, name: str = "run", **changed: object) -> PlannedRun:
    """A run of budget 1e10 x (number + 1)."""
    fields = {
        "run": f"{name}-{number:02}",
        "cluster": f"{name}-{number:02}",
        "budget": 1e10 * (number + 1),
        "flops": 10**10 * (number + 1),
        "parameters": 1_000,
        "parameters_without_embedding": 900,
        "width": 32,
        "depth": 2,
        "heads": 2,
        "steps": STEPS,
        "tokens": 12_000,
        "batch_tokens": 1_000.0,
        "peak_rate": 1e-3,
        "warmup_steps": 1,
        "rule": "fixed",
        "parametrisation": "standard",
        "seed": 0,
        "memory_bytes": 1,
        "slice": "cpu-2",
        "hours": 1.0,
        "cost": 0.0,
        "code": "code",
        "data": "data",
        "fingerprint": "config",
        "experiment": {"name": "pretended"},
    }
    return PlannedRun(**{**fields, **changed})  # type: ignore[arg-type]


def record_of(lease: Lease, attempt: Attempt) -> RunRecord:
    """As that of a run which was never stopped, but for its seconds."""
    run = lease.run
    return RunRecord(
        run=run.run,
        sweep="pretended",
        status=attempt.status,  # type: ignore[arg-type]
        budget=run.budget,
        flops=float(run.flops),
        parameters=run.parameters,
        tokens=float(run.tokens),
        loss=1.0 / run.budget if attempt.status == "done" else None,
        hardware=lease.holding.hardware,
        seconds=lease.seconds,
    )


def command(function: str, *words: object) -> list[str]:
    """What calls a function of this file, with these words, in a process of its own."""
    script = f"import sys; sys.path.insert(0, {str(CHECKOUT)!r}); from tests import sweeps; "
    return [sys.executable, "-c", f"{script}sweeps.{function}(*sys.argv[1:])", *map(str, words)]


def worker(directory: str, lease_seconds: str, step_seconds: str) -> None:
    """Works until no run is left, as `sora sweep run` does."""
    queue, name = Queue(Path(directory), float(lease_seconds)), worker_name()
    try:
        work(queue, command("child", directory, name, lease_seconds, step_seconds), name, record_of)
    except UserError as error:
        sys.exit(error.exit_code)


def child(directory: str, worker: str, lease_seconds: str, step_seconds: str) -> None:
    """Pretends to train the next run, to an end that its name says."""
    leave_with_worker()
    queue = Queue(Path(directory), float(lease_seconds))
    lease = queue.claim(worker, f"process {os.getpid()}")
    if lease is None:
        sys.exit(NOTHING_LEFT)
    with lease.beating(lost):
        attempt = _pretended(lease, float(step_seconds))
    conclude(lease, attempt, record_of)


def _pretended(lease: Lease, step_seconds: float) -> Attempt:
    kind = lease.run.run.split("-")[0]
    with (lease.directory / TRAINED).open("a") as file:
        for step in range(saved(lease.directory) + 1, lease.run.steps + 1):
            time.sleep(step_seconds)
            file.write(f"{os.getpid()} {step}\n")
            file.flush()
            if step % SAVE_EVERY == 0:
                (checkpoints(lease.directory) / str(step)).mkdir(parents=True, exist_ok=True)
            if kind == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
    if kind == "diverging":
        return Attempt("diverged", "the loss is no number")
    return Attempt("failed", "it never works") if kind == "failing" else Attempt("done")


def trained(queue: Queue) -> dict[str, list[tuple[int, int]]]:
    """(Process, step) of all that was trained of each run, in order."""
    found = {}
    for entry in queue.look():
        path = entry.directory / TRAINED
        lines = path.read_text().splitlines() if path.exists() else []
        found[entry.directory.name] = [(int(a), int(b)) for a, b in map(str.split, lines)]
    return found
