"""Two real processes train as one does; one of them killed, the run goes on to the same bits."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.cli.test_train import last_state, lines, made_in, resume
from tests.processes import CHECKOUT

NUMBERS = ("step", "loss", "gradient_norm", "update_norm")


def launched(given: tuple[Path, Path], directory: Path, stage: str, *flags: str) -> list[str]:
    """The command that trains a stage by two processes of four devices."""
    command = [sys.executable, "-m", "launch.local", "--processes=2", "--devices_per_process=4"]
    options = {"experiment": given[0], "data": given[1], "workdir": directory, "stage": stage}
    train = ["sora", "train", *(f"--{name}={value}" for name, value in options.items())]
    return [*command, "--", *train, *flags]


def run_of(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)


def kill_one_in_the_middle(command: list[str], directory: Path, stage: str) -> None:
    """Kills the second process once its run is well past its first checkpoint; the launcher and the
    other process end by themselves."""
    launcher = subprocess.Popen(
        command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    deadline = time.monotonic() + 600
    while not lines(directory, stage) or lines(directory, stage)[-1]["step"] < 30:
        assert launcher.poll() is None, launcher.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split()
    second = [
        int(child)
        for child in children
        if b"SORA_PROCESS=1\0" in Path(f"/proc/{child}/environ").read_bytes() + b"\0"
    ]
    os.kill(second[0], signal.SIGKILL)
    launcher.communicate(timeout=300)
    assert launcher.returncode == 128 + signal.SIGKILL


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An experiment file and a set for it."""
    return made_in(tmp_path_factory.mktemp("given"))


@pytest.mark.slow
def test_two_processes_train_as_one_and_go_on_when_one_is_killed(
    given: tuple[Path, Path], tmp_path: Path
) -> None:
    alone, whole, killed = (tmp_path / name for name in ("alone", "whole", "killed"))
    for stage in ("vae", "dit"):
        resume(given, alone, stage)
        finished = run_of(launched(given, whole, stage))
        assert finished.returncode == 0, finished.stdout
        losses = [
            [[line[name] for name in NUMBERS] for line in lines(where, stage)]
            for where in (alone, whole)
        ]
        np.testing.assert_allclose(losses[1], losses[0], rtol=1e-4)
        np.testing.assert_allclose(losses[1][:1], losses[0][:1], rtol=1e-5)

        kill_one_in_the_middle(launched(given, killed, stage), killed, stage)
        assert lines(killed, stage)[-1]["step"] < 60
        again = run_of(launched(given, killed, stage))
        assert again.returncode == 0, again.stdout
        assert "continuing from step" in again.stdout
        expected, found = (last_state(given, where, stage) for where in (whole, killed))
        for name, array in expected.items():
            np.testing.assert_array_equal(found[name], array, err_msg=name)
    measured = [(where / "vae" / "latents.json").read_text() for where in (whole, killed)]
    assert measured[0] == measured[1]
    ours = json.loads(measured[0])
    theirs = json.loads((alone / "vae" / "latents.json").read_text())
    np.testing.assert_allclose(ours["mean"], theirs["mean"], atol=1e-4)


@pytest.mark.slow
def test_a_process_with_another_set_or_seed_stops_all(
    given: tuple[Path, Path], tmp_path: Path
) -> None:
    other = "import os, sys; sys.argv += ['--set=seed=' + os.environ['SORA_PROCESS']]; "
    command = launched(given, tmp_path / "run", "vae")
    at = command.index("sora")
    script = other + "from sora_jax.cli.main import main; main()"
    stopped = run_of([*command[:at], sys.executable, "-c", script, *command[at + 1 :]])
    assert stopped.returncode == 1
    told = [line for line in stopped.stdout.splitlines() if "disagree" in line]
    assert told[0].endswith("seed is 0 in process 0 and 1 in process 1")
    assert not (tmp_path / "run").exists()
