"""Several processes on one machine: what they are told, and what becomes of their failures."""

import os
import signal
import subprocess
import sys
import time

import pytest

from launch.local import free_port
from tests.processes import CHECKOUT


def launch(
    script: str, *flags: str, processes: int = 3, **environment: str
) -> subprocess.Popen[str]:
    """A launch of processes that run a Python script."""
    command = [sys.executable, "-m", "launch.local", "--processes", str(processes), *flags, "--"]
    return subprocess.Popen(
        [*command, sys.executable, "-c", script],
        cwd=CHECKOUT,
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_each_process_is_told_which_it_is_and_marked() -> None:
    script = "import os; print(*(os.environ['SORA_' + n] for n in "
    script += "('COORDINATOR', 'PROCESSES', 'PROCESS')), os.environ['JAX_NUM_CPU_DEVICES'])"
    port = str(free_port())
    run = launch(script, "--devices_per_process", "2", "--port", port)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == 0
    assert sorted(output.splitlines()) == [f"[{n}] localhost:{port} 3 {n} 2" for n in range(3)]


@pytest.mark.parametrize(
    ("failure", "code"), [("sys.exit(42)", 42), ("os.kill(os.getpid(), 9)", 137)]
)
def test_when_one_fails_the_others_are_stopped_and_its_code_is_kept(
    failure: str, code: int
) -> None:
    script = f"import os, sys, time\nif os.environ['SORA_PROCESS'] == '1': {failure}\n"
    script += "print('waiting'); time.sleep(600)"
    run = launch(script)
    output, _ = run.communicate(timeout=60)
    assert run.returncode == code
    assert "[1]" not in output


@pytest.mark.parametrize("asked", [signal.SIGTERM, signal.SIGINT])
def test_all_are_asked_to_stop(asked: signal.Signals) -> None:
    script = """
import os, signal, sys, time
def stop(number, frame):
    print("told to stop", flush=True)
    sys.exit(0)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
time.sleep(600)
"""
    run = launch(script, processes=2)
    assert run.stdout is not None
    ready = [run.stdout.readline() for _ in range(2)]
    assert sorted(ready) == ["[0] ready\n", "[1] ready\n"]
    time.sleep(0.1)
    run.send_signal(asked)
    output, _ = run.communicate(timeout=60)
    assert sorted(output.splitlines()) == ["[0] told to stop", "[1] told to stop"]
    assert run.returncode == 0


def test_a_launch_of_nothing_is_one_sentence() -> None:
    for flags, processes in ((["--devices_per_process", "0"], 1), ([], 0)):
        run = launch("", *flags, processes=processes)
        _, errors = run.communicate(timeout=60)
        assert run.returncode == 2
        assert "give --processes and --devices_per_process from 1 up" in errors
