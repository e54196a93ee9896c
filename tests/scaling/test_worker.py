"""Real workers and their processes, killed at random: each run is trained once, to the same end."""

import dataclasses
import itertools
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pytest

from sora_jax.errors import RESTARTABLE, RestartableError, UserError
from sora_jax.scaling.queue import Queue
from sora_jax.scaling.records import RunRecord, read_records
from sora_jax.scaling.worker import work
from tests.sweeps import STEPS, command, planned, record_of, trained

LEASE = 6.0  # a busy machine may let a thread wait for seconds


def records(queue: Queue) -> list[RunRecord]:
    """Without what follows from the machine."""
    found = read_records(queue.directory)
    return [dataclasses.replace(each, hardware=None, seconds=None) for each in found]


def started(queue: Queue, step_seconds: float = 0.0) -> "subprocess.Popen[bytes]":
    words = command("worker", queue.directory, queue.lease_seconds, step_seconds)
    return subprocess.Popen(words, stdin=subprocess.DEVNULL)


def a_queue(directory: Path, *names: str) -> Queue:
    queue = Queue(directory, LEASE)
    queue.add(planned(number, name) for number, name in enumerate(names))
    return queue


def test_what_a_run_does_to_its_process_stops_no_other(tmp_path: Path) -> None:
    queue = a_queue(tmp_path, "killed", "failing", "diverging", "run")
    assert started(queue).wait(120) == 0
    ends = {entry.directory.name: entry.ended for entry in queue.look()}
    told = {name: (each.status, each.reason) for name, each in ends.items() if each is not None}
    assert told == {
        "killed-00": ("failed", "its process was ended by SIGKILL, as where memory runs out"),
        "failing-01": ("failed", "it never works"),
        "diverging-02": ("diverged", "the loss is no number"),
        "run-03": ("done", ""),
    }
    attempts = {entry.directory.name: len(entry.leases) for entry in queue.look()}
    assert attempts == {"killed-00": 2, "failing-01": 2, "diverging-02": 1, "run-03": 1}
    assert [each.status for each in records(queue)] == ["failed", "failed", "diverged", "done"]


def test_a_worker_that_is_asked_to_stop_passes_it_on_and_gives_the_run_back(
    tmp_path: Path,
) -> None:
    queue = a_queue(tmp_path, "run")
    worker = started(queue, step_seconds=1.0)
    while queue.look()[0].state == "planned":
        time.sleep(0.05)
    worker.terminate()
    assert worker.wait(60) == RESTARTABLE
    [entry] = queue.look()
    assert (entry.state, entry.failures) == ("planned", 0)


def test_a_command_that_takes_no_run_ends_its_worker(tmp_path: Path) -> None:
    queue = a_queue(tmp_path, "run")
    with pytest.raises(
        UserError, match="no run could be taken: its process ended with exit code 1"
    ):
        work(queue, ["false"], "one", record_of)
    with pytest.raises(RestartableError, match="ended by SIGSEGV"):
        work(queue, ["sh", "-c", "kill -SEGV $$"], "one", record_of)


def test_kills_at_random_moments_leave_no_trace(tmp_path: Path) -> None:
    """Ten of two workers are killed, and with them their processes, at random moments."""
    names = ["run"] * 6
    whole, queue = a_queue(tmp_path / "whole", *names), a_queue(tmp_path / "killed", *names)
    assert started(whole).wait(120) == 0
    draw, kills = random.Random(0), 0
    workers = [started(queue, 0.1) for _ in range(2)]
    try:
        while kills < 10:
            time.sleep(draw.uniform(0.3, 1.2))
            victim = draw.randrange(2)
            workers[victim].kill()
            kills += workers[victim].wait() == -signal.SIGKILL
            workers[victim] = started(queue, 0.1)
        assert [each.wait(240) for each in workers] == [0, 0]
    finally:
        for each in workers:
            each.kill()
    assert records(queue) == records(whole)
    assert sum(len(entry.leases) for entry in queue.look()) > len(names)  # some were taken over
    for steps in trained(queue).values():
        processes = [process for process, _ in itertools.groupby(steps, key=lambda each: each[0])]
        assert len(set(processes)) == len(processes)  # never two at once
        for own in processes[:-1]:
            assert not _lives(own)
        last = [step for process, step in steps if process == processes[-1]]
        assert last == list(range(STEPS - len(last) + 1, STEPS + 1))


def _lives(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True
