"""Real runs of a sweep, killed, taken over and branched, become the records of undisturbed ones."""

import dataclasses
import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from benchmarks import quick_compiling
from sora_jax.data.mixture import Clips
from sora_jax.scaling.plan import PlannedRun, save_plan
from sora_jax.scaling.queue import Queue
from sora_jax.scaling.records import RunRecord, read_records
from tests import tiny_sweep
from tests.processes import CHECKOUT
from tests.tiny_sweep import planned, words


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sweep")


@pytest.fixture(scope="module")
def clips(root: Path) -> Clips:
    return tiny_sweep.prepare(root)


def plan(clips: Clips, branches: bool) -> list[PlannedRun]:
    """A run and one that branches off it, one of another seed, and one that diverges."""
    trunk, short = planned(clips, 16), planned(clips, 8)
    branch = {"branch_of": trunk.run, "branch_step": 4} if branches else {}
    short = dataclasses.replace(short, cluster=trunk.run, **branch)
    return [short, planned(clips, 8, seed=1), planned(clips, 12, rate=1e30), trunk]


def started(root: Path, queue: Path, *flags: str) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-m", "sora_jax.cli.sweep_run", *words(root, queue), *flags]
    environment = os.environ | {"XLA_FLAGS": quick_compiling.XLA_FLAGS}  # one device
    with (root / "said.txt").open("ab") as file:
        return subprocess.Popen(
            command, cwd=CHECKOUT, env=environment, stdout=file, stderr=subprocess.STDOUT
        )


def records(queue: Path) -> list[RunRecord]:
    """Without what follows from the machine."""
    return [dataclasses.replace(each, hardware=None, seconds=None) for each in read_records(queue)]


def said(root: Path) -> str:
    return (root / "said.txt").read_text(errors="replace")[-4000:]


@pytest.fixture(scope="module")
def whole(root: Path, clips: Clips) -> Path:
    """The queue of a sweep that nothing disturbed, without branches."""
    save_plan(root / "plan.json", plan(clips, branches=False))
    assert started(root, root / "whole").wait(1200) == 0, said(root)
    return root / "whole"


@pytest.mark.slow
def test_runs_become_records(root: Path, clips: Clips, whole: Path) -> None:
    found = {record.run: record for record in records(whole)}
    runs = plan(clips, branches=False)
    assert list(found) == [run.run for run in sorted(runs, key=lambda run: (run.budget, run.seed))]
    for run in runs:
        record = found[run.run]
        if record.peak_rate == 1e30:
            assert record.status == "diverged"
            assert record.flops < run.flops
        else:
            assert (record.status, record.flops, record.tokens) == ("done", run.flops, run.tokens)
            assert record.loss is not None
            assert record.loss_error is not None
            assert 0 < record.loss_error < record.loss
            assert "held_out/loss/level_0.8-1.0" in record.metrics


def wait_for_a_run(queue: Path, worker: "subprocess.Popen[bytes]") -> None:
    """Until the worker has taken one, or has ended."""
    while worker.poll() is None:
        held = [entry.leases[-1] for entry in Queue(queue).look() if entry.is_held]
        if any(lease and f"-{worker.pid}-" in lease.worker for lease in held):
            return
        time.sleep(0.1)


@pytest.mark.slow
def test_kills_and_branches_leave_no_trace_in_records(
    root: Path, clips: Clips, whole: Path
) -> None:
    """Two workers on one queue, of which ten are killed at random moments."""
    save_plan(root / "plan.json", plan(clips, branches=True))
    queue, draw = root / "killed", random.Random(0)
    queue.mkdir()
    workers = [started(root, queue, "--lease_seconds=20") for _ in range(2)]
    try:
        for number in range(10):
            victim = draw.randrange(2)
            if number % 2:  # else it may not have come so far
                wait_for_a_run(queue, workers[victim])
            time.sleep(draw.uniform(0, 20))
            workers[victim].kill()
            workers[victim].wait()
            workers[victim] = started(root, queue, "--lease_seconds=20")
        assert [each.wait(1200) for each in workers] == [0, 0], said(root)
    finally:
        for each in workers:
            each.kill()
    assert records(queue) == records(whole)
    assert "branches off" in (root / "said.txt").read_text()
    for entry in Queue(queue).look():
        path = entry.directory / "train" / "dit" / "events.jsonl"
        events = [json.loads(line) for line in path.read_text().splitlines()]
        ends = [event for event in events if event.get("reason") == "done"]
        assert len(ends) <= 1, entry.directory
