"""Several processes of one run on this machine, over CPU devices: what a pod does, in small.

    python -m launch.local --processes 4 --devices_per_process 2 -- sora train --experiment demo ...

Every process runs the command after `--`, with `sora` standing for this Python's. Lines are marked
with the process they are of. SIGTERM goes to all, and Ctrl-C as SIGTERM; when one fails, the others
are stopped, and its exit code is this command's.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from types import FrameType
from typing import IO

from sora_jax.errors import DONE, RESTARTABLE
from sora_jax.processes import COORDINATOR, COUNT, NUMBER

SORA = "from sora_jax.cli.main import main; main()"
DEVICES_FLAG = "xla_force_host_platform_device_count"
GRACE_SECONDS = 30  # between asking the others to stop and stopping them
LOST_SECONDS = 3  # the same where one has died, whom the others would wait for


def main(arguments: Sequence[str]) -> int:
    """Runs them to their end; returns the exit code of the first that failed, or 0."""
    parser = argparse.ArgumentParser(prog="python -m launch.local", description=__doc__)
    parser.add_argument("--processes", type=int, required=True)
    parser.add_argument("--devices_per_process", "--devices-per-process", type=int, default=1)
    parser.add_argument("--port", type=int, help="of process 0 (default: a free one)")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and what each runs")
    chosen = parser.parse_args(arguments)
    command = chosen.command[1:] if chosen.command[:1] == ["--"] else chosen.command
    if min(chosen.processes, chosen.devices_per_process) < 1 or not command:
        parser.error("give --processes and --devices_per_process from 1 up, and -- a command")
    if command[0] == "sora":
        command = [sys.executable, "-c", SORA, *command[1:]]
    coordinator = f"localhost:{chosen.port or free_port()}"
    children = [
        _started(command, number, chosen.processes, chosen.devices_per_process, coordinator)
        for number in range(chosen.processes)
    ]
    shown = [
        threading.Thread(target=_show, args=(number, child.stdout))
        for number, child in enumerate(children)
    ]
    for thread in shown:
        thread.start()

    def stop(number: int, frame: FrameType | None) -> None:
        del number, frame
        for child in children:
            if child.poll() is None:
                child.terminate()  # for Ctrl-C too: a run saves then

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    code = _outcome(children)
    for thread in shown:
        thread.join()
    return code


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port: int = found.getsockname()[1]
        return port


def _started(
    command: Sequence[str], number: int, count: int, devices: int, coordinator: str
) -> subprocess.Popen[str]:
    # Another number of devices may stand there.
    xla = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if DEVICES_FLAG not in flag]
    environment = os.environ | {
        "XLA_FLAGS": " ".join(xla),
        COORDINATOR: coordinator,
        COUNT: str(count),
        NUMBER: str(number),
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "PYTHONUNBUFFERED": "1",
    }
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # or Ctrl-C would reach them beside us
    )


def _show(number: int, lines: IO[str] | None) -> None:
    for line in lines or ():
        sys.stdout.write(f"[{number}] {line}")
        sys.stdout.flush()


def _outcome(children: Sequence[subprocess.Popen[str]]) -> int:
    """Waits for all, or for the first that fails; then the rest are stopped."""
    while True:
        codes = [child.poll() for child in children]
        if any(codes):
            break
        if None not in codes:
            return DONE
        time.sleep(0.05)
    preempted = all(code in (None, DONE, RESTARTABLE) for code in codes)
    deadline = time.monotonic() + (GRACE_SECONDS if preempted else LOST_SECONDS)
    for child in children:
        if child.poll() is None:
            child.terminate()
    for child in children:
        try:
            child.wait(max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            child.kill()
    # What one died of comes before what that made of the others.
    code = min(filter(None, codes), key=lambda code: (code == RESTARTABLE, code))
    return 128 - code if code < 0 else code  # as a shell says of a signal


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
