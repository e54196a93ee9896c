"""A run of two processes is evaluated by any number of them, killed or not, to the same numbers."""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from benchmarks.restarts import children, command, finish, make_set, started

EIGHT_DEVICES = ("--set=mesh.replica=2", "--set=mesh.context=2")  # by fsdp=2
CLIPS = {"prompts": 12, "images": 3, "animations": 3}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Both stages, on a mesh of 2 x 2 x 2 x 1 by 2 processes."""
    directory = tmp_path_factory.mktemp("run")
    data, output = make_set(directory / "data"), directory / "output.txt"
    for stage in ("vae", "dit"):
        words = command(directory / "run", data, stage, 2, 4, *EIGHT_DEVICES)
        assert finish(words, output) == 0, output.read_text()[-4000:]
    return directory / "run"


def evaluating(run: Path, output: Path, processes: int, devices: int, *flags: str) -> list[str]:
    """What evaluates the run by several processes."""
    launch = [sys.executable, "-m", "launch.local", f"--processes={processes}"]
    return [
        *launch,
        f"--devices_per_process={devices}",
        *("--", "sora", "evaluate", f"--checkpoint={run}", f"--output={output}"),
        *("--set=sampling.rows=4", "--set=sampling.steps=3"),
        *(f"--set=evaluation.{name}={count}" for name, count in CLIPS.items()),
        *flags,
    ]


def metrics(output: Path) -> dict[str, float]:
    return dict(json.loads((output / "metrics.json").read_text()))


@pytest.fixture(scope="module")
def alone(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """By one process on one device."""
    output = tmp_path_factory.mktemp("alone")
    assert finish(evaluating(run, output, 1, 1), output / "said.txt") == 0, said(output)
    return metrics(output)


def said(output: Path) -> str:
    return (output / "said.txt").read_text()[-4000:]


@pytest.mark.slow
@pytest.mark.parametrize(("processes", "devices"), [(1, 8), (2, 2), (4, 2)])
def test_numbers_are_those_of_one_process(
    run: Path, alone: dict[str, float], tmp_path: Path, processes: int, devices: int
) -> None:
    words = evaluating(run, tmp_path, processes, devices)
    assert finish(words, tmp_path / "said.txt") == 0, said(tmp_path)
    found = metrics(tmp_path)
    assert found.keys() == alone.keys()
    for name, value in alone.items():
        if isinstance(value, str):
            assert found[name] == value
        else:
            assert found[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


@pytest.mark.slow
def test_kills_at_random_moments_leave_no_trace(
    run: Path, alone: dict[str, float], tmp_path: Path
) -> None:
    draw, kept = random.Random(0), 0
    words = evaluating(run, tmp_path, 1, 1)
    for _ in range(5):
        with started(words, tmp_path / "said.txt") as evaluation:
            moment = time.monotonic() + draw.uniform(5, 25)
            while evaluation.poll() is None and time.monotonic() < moment:
                time.sleep(0.01)
            if evaluation.poll() is None:
                os.kill(children(evaluation.pid)[0], signal.SIGKILL)
                evaluation.wait(60)
        kept = max(kept, len(list(tmp_path.rglob("0*.npz"))))
        assert not list(tmp_path.rglob("metrics.json")) or metrics(tmp_path) == alone
    assert kept
    assert finish(words, tmp_path / "said.txt") == 0, said(tmp_path)
    assert metrics(tmp_path) == alone
