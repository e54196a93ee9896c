"""Real processes on real runs: disturbed at random, on other numbers of them, and not all alike."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks.restarts import (
    CHECKOUT,
    Moment,
    command,
    differences,
    disturb,
    finish,
    log,
    make_set,
    saved,
)
from sora_jax.errors import RESTARTABLE

EIGHT_DEVICES = ("--set=mesh.replica=2", "--set=mesh.context=2")  # by fsdp=2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("data") / "set")


@pytest.mark.slow
def test_any_number_of_kills_and_stops_leave_no_trace(data: Path, tmp_path: Path) -> None:
    """Both stages by 2 processes of 4 devices; each way 10 times, at random moments."""
    draw, whole = random.Random(0), tmp_path / "whole"
    output = tmp_path / "output.txt"
    for stage in ("vae", "dit"):
        assert finish(command(whole, data, stage, 2, 4, *EIGHT_DEVICES), output) == 0
        for kind in (signal.SIGKILL, signal.SIGTERM):
            run = tmp_path / kind.name
            words = command(run, data, stage, 2, 4, *EIGHT_DEVICES)
            for number in range(5):
                saving = number % 2 == 0
                moment = Moment(run / stage, draw.uniform(0, 2), saving)
                code = disturb(words, output, kind, moment, draw.randrange(2))
                assert code == (RESTARTABLE if kind == signal.SIGTERM else 137) or code == 0
            assert finish(words, output) == 0, output.read_text()[-4000:]
            assert differences(run / stage, whole / stage) == []


@pytest.mark.slow
def test_other_numbers_of_processes_go_on_with_the_same_run(data: Path, tmp_path: Path) -> None:
    """4, then 2, 1 and 4 again, of as many devices in all: as one process alone."""
    alone, changing, output = tmp_path / "alone", tmp_path / "changing", tmp_path / "output.txt"
    four = "--set=mesh.fsdp=4"
    assert finish(command(alone, data, "vae", 1, 4, four), output) == 0, output.read_text()
    for processes in (4, 2, 1):
        words = command(changing, data, "vae", processes, 4 // processes, four)
        moment = Moment(changing / "vae", 0.5)
        assert disturb(words, output, signal.SIGTERM, moment, 0) == RESTARTABLE
    steps = [line["step"] for line in log(changing / "vae")]
    assert steps[-1] < 60
    assert finish(command(changing, data, "vae", 4, 1, four), output) == 0, output.read_text()
    ours, theirs = log(changing / "vae"), log(alone / "vae")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    for line, expected in zip(ours, theirs, strict=True):
        assert line.keys() == expected.keys()
        assert line["loss"] == pytest.approx(expected["loss"], rel=1e-5)
    states = [saved(each / "vae") for each in (changing, alone)]
    assert states[0]["position"] == states[1]["position"]
    for name in (name for name in states[0] if name.startswith("ema.")):
        np.testing.assert_allclose(states[0][name], states[1][name], atol=1e-4, err_msg=name)


@pytest.mark.parametrize("other", ["seed", "set"])
def test_a_process_with_another_set_or_seed_stops_all(
    data: Path, tmp_path: Path, other: str
) -> None:
    words = command(tmp_path / "run", data, "vae")
    change = "['--set=seed=1']"
    if other == "set":
        change = f"['--data={make_set(tmp_path / 'other', seed=1)}']"
    script = "import os, sys; number = os.environ['SORA_PROCESS']; "
    script += f"sys.argv += {change} * (number == '1'); "
    if other == "set":
        script += f"sys.argv = [a for a in sys.argv if a != '--data={data}' or number == '0']; "
    script += "from sora_jax.cli.main import main; main()"
    at = words.index("sora")
    words = [*words[:at], sys.executable, "-c", script, *words[at + 1 :]]
    start = time.monotonic()
    stopped = subprocess.run(words, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert time.monotonic() - start < 60
    assert stopped.returncode == 1
    told = [line for line in stopped.stdout.splitlines() if "disagree" in line]
    assert len(told) == 2
    if other == "seed":
        assert told[0].endswith("seed is 0 in process 0 and 1 in process 1")
    else:
        assert "--data is " in told[0]
    assert not (tmp_path / "run").exists()
