"""The watchdog: a process in which nothing ends is ended, with the stacks of what hangs."""

import subprocess
import sys
import time
from pathlib import Path

from sora_jax.errors import RESTARTABLE
from sora_jax.train.watchdog import Watchdog
from tests.processes import CHECKOUT

HANGS = """
import sys, threading, time
from pathlib import Path
from sora_jax.train.watchdog import Watchdog

def a_file_that_never_comes():
    time.sleep(600)

with Watchdog(1.0, Path(sys.argv[1]), "tiny") as watchdog:
    for step in range(4):
        time.sleep(0.5)
        watchdog.beat(f"after step {step}")
    threading.Thread(target=a_file_that_never_comes).start()
    time.sleep(600)
"""


def test_a_run_that_hangs_shows_where_and_can_be_started_again(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HANGS, str(tmp_path)]
    run = subprocess.run(
        command, capture_output=True, text=True, timeout=120, cwd=CHECKOUT, check=False
    )
    assert run.returncode == RESTARTABLE
    assert "tiny: nothing has ended for 1 s (after step 3); stacks are in" in run.stderr
    (stacks,) = tmp_path.glob("stacks.*.txt")
    assert "a_file_that_never_comes" in stacks.read_text()
    assert "a_file_that_never_comes" in run.stderr


def test_it_leaves_alone_what_has_ended(tmp_path: Path) -> None:
    with Watchdog(0.1, tmp_path, "tiny"):
        pass
    time.sleep(0.5)
    assert not list(tmp_path.iterdir())
