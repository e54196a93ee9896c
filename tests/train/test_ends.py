"""How a run ends in a process of its own: a disk that fills up, data that never comes, SIGTERM."""

import os
import subprocess
import sys
from pathlib import Path

from sora_jax.checkpoints import Checkpoints
from sora_jax.errors import FAILED, RESTARTABLE
from sora_jax.train.loop import train
from tests.processes import CHECKOUT
from tests.train.test_loop import assert_equal, lines, make_run

CHILD = """
import dataclasses, os, resource, signal, sys, time
from pathlib import Path
from types import ModuleType
from absl import flags
from sora_jax.cli.main import run
from sora_jax.nn.layers import Linear
from sora_jax.train.loop import train
from tests.train import test_loop
from tests.train.test_loop import CONFIG, Stream, make_run

{body}

command = ModuleType("sora_jax.cli.train")
command.FLAGS, command.main = flags.FlagValues(), lambda argv: main(Path(sys.argv[1]))
run(command, [])
"""
DISK_THAT_FILLS_UP = """
class Fills(Stream):
    def __next__(self):
        if self.next == 6:
            while not (Path(sys.argv[1]) / "checkpoints" / "4").exists():
                time.sleep(0.1)
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))
        time.sleep(0.02)
        return super().__next__()

def wide(rngs):
    return Linear(6, 20_000, ("embed", "mlp"), rngs=rngs)

def main(directory):
    test_loop.make_model = wide
    train(make_run(directory, Fills(), dataclasses.replace(CONFIG, steps=1000, log_every=100)))
"""
DATA_THAT_NEVER_COMES = """
class Hangs(Stream):
    def __next__(self):
        return self.a_file_that_never_comes() if self.next == 11 else super().__next__()

    def a_file_that_never_comes(self):
        time.sleep(600)

def main(directory):
    train(make_run(directory, Hangs(), stall_seconds=10.0))
"""
STOPPED = """
class Stops(Stream):
    def __next__(self):
        if self.next == 6:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__next__()

def main(directory):
    train(make_run(directory, Stops()))
"""


def ended(body: str, directory: Path) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8",
    }
    command = [sys.executable, "-c", CHILD.format(body=body), str(directory)]
    return subprocess.run(
        command, env=environment, cwd=CHECKOUT, capture_output=True, text=True, check=False
    )


def test_a_disk_that_fills_up_is_told_at_the_next_steps(tmp_path: Path) -> None:
    # A limit on the size of files stands for the full disk: writing fails half-way as there.
    run = ended(DISK_THAT_FILLS_UP, tmp_path)
    assert run.returncode == FAILED
    sentence = (
        f"sora train: cannot save a checkpoint in {tmp_path}/checkpoints: File too large; that of "
        "step 4 is whole\n"
    )
    assert sentence in run.stderr, run.stderr  # amid Orbax's own account, of its threads
    assert lines(make_run(tmp_path))[-1]["step"] == 1  # long before step 100
    assert Checkpoints(tmp_path / "checkpoints").latest() == 4


def test_data_that_never_comes_ends_the_run_and_shows_where(tmp_path: Path) -> None:
    run = ended(DATA_THAT_NEVER_COMES, tmp_path)
    assert run.returncode == RESTARTABLE
    assert "tiny: nothing has ended for 10 s (after step 10)" in run.stderr
    (stacks,) = tmp_path.glob("stacks.*.txt")
    assert "in a_file_that_never_comes" in stacks.read_text()
    assert Checkpoints(tmp_path / "checkpoints").latest() == 8


def test_a_run_that_is_asked_to_stop_saves_and_can_be_started_again(tmp_path: Path) -> None:
    run = ended(STOPPED, tmp_path)
    assert run.returncode == RESTARTABLE
    sentence = run.stderr.splitlines()[-1]
    assert sentence == (
        "sora train: tiny: stopped by SIGTERM after step 7, which is saved; the same command goes "
        "on"
    )
    again, whole = make_run(tmp_path), make_run(tmp_path / "whole")
    assert_equal(train(again), train(whole))
    assert [line["loss"] for line in lines(again)] == [line["loss"] for line in lines(whole)]
