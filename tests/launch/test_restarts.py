"""A run of two processes, killed while it saves and asked to stop, ends as if it had not been."""

import signal
from pathlib import Path

import pytest

from benchmarks.restarts import (
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


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_set(tmp_path_factory.mktemp("data") / "set")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing stopped."""
    directory = tmp_path_factory.mktemp("whole")
    output = directory / "output.txt"
    assert finish(command(directory, data, "vae"), output) == 0, output.read_text()
    return directory


def test_a_run_of_two_processes_ends_as_if_nothing_had_happened(
    data: Path, whole: Path, tmp_path: Path
) -> None:
    words, output, stage = command(tmp_path, data, "vae"), tmp_path / "output.txt", tmp_path / "vae"
    while_it_saves = Moment(stage, 0.3, saving=True)
    assert disturb(words, output, signal.SIGKILL, while_it_saves, victim=1) == 128 + signal.SIGKILL
    assert not log(stage) or log(stage)[-1]["step"] < 60

    assert disturb(words, output, signal.SIGTERM, Moment(stage, 0.3), victim=1) == RESTARTABLE
    told = output.read_text()
    [step] = {int(word) for word in _after("stopped by SIGTERM after step ", told)}
    assert told.count(f"step {step}, which is saved; the same command goes on") == 2

    assert finish(words, output) == 0, output.read_text()
    assert f"continuing from step {step}" in output.read_text()
    assert differences(stage, whole / "vae") == []


def test_one_process_goes_on_with_what_two_began(data: Path, whole: Path, tmp_path: Path) -> None:
    output, stage = tmp_path / "output.txt", tmp_path / "vae"
    two, one = (command(tmp_path, data, "vae", number, 2 // number) for number in (2, 1))
    assert disturb(two, output, signal.SIGTERM, Moment(stage, 0.3), victim=0) == RESTARTABLE
    assert log(stage)[-1]["step"] < 60
    assert finish(one, output) == 0, output.read_text()
    ours, theirs = log(stage), log(whole / "vae")
    assert [line["step"] for line in ours] == [line["step"] for line in theirs]
    losses = [line["loss"] for line in theirs]
    assert [line["loss"] for line in ours] == pytest.approx(losses, rel=1e-5)
    assert saved(stage)["position"] == saved(whole / "vae")["position"]


def _after(words: str, text: str) -> list[str]:
    return [part.split(",")[0] for part in text.split(words)[1:]]
