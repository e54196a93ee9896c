"""`sora data`: build from the world and from a folder, verify, inspect, and its sentences."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sora_jax.cli.data import build_simulated_set
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.data.sources import ClipSet
from sora_jax.errors import ConfigError

EXPERIMENT = """
import dataclasses
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.eval.evaluator import EvaluationConfig
from sora_jax.world.scene import WorldConfig

@dataclasses.dataclass(frozen=True)
class Small:
    data: DataConfig
    world: WorldConfig
    evaluation: EvaluationConfig = EvaluationConfig()

def experiment():
    buckets = (Bucket(1, 24, 24), Bucket(5, 24, 24), Bucket(5, 16, 32, 2.0))
    return Small(DataConfig(buckets, (ShapeClass(1, 1),)), WorldConfig())
"""


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    path = tmp_path / "small.py"
    path.write_text(EXPERIMENT)
    return path


def sora_data(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sora_jax.cli.data", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_a_set_of_the_world_is_built_verified_and_shown(experiment: Path, tmp_path: Path) -> None:
    output = tmp_path / "set"
    build = ["build", "--world", 8, "--output", output, "--experiment", experiment]
    built = sora_data(*build)
    assert built.returncode == 0, built.stderr
    for line in ("1x24x24               2 clips", "5x16x32               4 clips", "emitted 8"):
        assert line in built.stdout
    again = sora_data(*build)
    assert again.returncode == 1
    assert again.stderr == (
        f"sora data: {output} is not empty: remove it or choose another --output\n"
    )
    assert sora_data("verify", output).stdout.endswith("5 files are as the manifest says\n")
    inspected = sora_data("inspect", output, "--output", tmp_path / "sheet.png")
    assert inspected.returncode == 0, inspected.stderr
    assert Image.open(tmp_path / "sheet.png").height > 300
    page = tmp_path / "sheet.html"
    assert inspected.stdout.endswith(f"contact sheet: {tmp_path}/sheet.png\npage: {page}\n")
    assert page.read_text().startswith("<!doctype html>")
    # Six clips of five frames at 8 a second.
    assert "all 8 100.0% 0.0010" in " ".join(inspected.stdout.split())
    wrong = sora_data("inspect", output, "--output", tmp_path / "sheet.jpg")
    assert wrong.returncode == 1
    assert wrong.stderr.endswith("sheet.jpg: inspect writes .png and .html, so end it in one\n")

    shard = output / "sora-5x16x32.array_record-00000"
    shard.write_bytes(shard.read_bytes()[:-1] + b"x")
    failed = sora_data("verify", output)
    assert failed.returncode == 1
    assert failed.stderr.count("\n") == 1
    assert str(shard) in failed.stderr


def test_a_folder_is_built_and_what_is_lost_is_told(experiment: Path, tmp_path: Path) -> None:
    folder, output = tmp_path / "in", tmp_path / "set"
    folder.mkdir()
    (folder / "bad.jpg").write_text("no image")
    (folder / "bad.txt").write_text("a caption")
    build = ["build", "--input", folder, "--output", output, "--experiment", experiment]
    nothing = sora_data(*build)
    assert nothing.returncode == 1
    assert "dropped: bad.jpg: unreadable" in nothing.stdout
    assert nothing.stderr == (
        f"sora data: no clip for {output} in the input (1 dropped: unreadable)\n"
    )
    assert not output.exists()

    Image.fromarray(np.zeros((50, 50, 3), np.uint8)).save(folder / "good.png")
    (folder / "good.txt").write_text("a black square")
    built = sora_data(*build)
    assert built.returncode == 0, built.stderr
    assert "1x24x24               1 clips" in built.stdout
    assert "5x24x24               0 clips (nothing to train on)" in built.stdout
    assert "dropped: bad.jpg: unreadable" in built.stdout


def test_the_schedule_of_an_experiment_is_shown() -> None:
    change = "dit_stage.curriculum=(Period(start_step=500, weights=(('1x32x32', 0.0),)),)"
    shown = sora_data("schedule", "--experiment", "demo", "--set", change)
    assert shown.returncode == 0, shown.stderr
    assert "steps 0 to 499\n" in shown.stdout
    assert "steps from 500 on\n" in shown.stdout
    assert shown.stdout.count("\nall ") == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["build"], "needs --output and --experiment"),
        (["build", "--output", "x", "--experiment", "E"], "needs one of --input and --world"),
        (["schedule"], "sora data schedule needs --experiment"),
        (["verify"], "'sora data verify' is not understood"),
        (["verify", "/nowhere"], "/nowhere has no manifest.json"),
    ],
)
def test_a_wrong_call_is_one_sentence(
    arguments: list[str], sentence: str, experiment: Path
) -> None:
    run = sora_data(*(str(experiment) if word == "E" else word for word in arguments))
    assert run.returncode == 1
    assert run.stderr.startswith("sora data: ")
    assert sentence in run.stderr
    assert run.stderr.count("\n") == 1


def test_a_set_of_the_worlds_of_an_experiment_has_as_many_of_each(tmp_path: Path) -> None:
    square, wide = Bucket(17, 32, 32), Bucket(17, 32, 40)
    config = DataConfig(buckets=(square,), shape_classes=(ShapeClass(1, 1),), fps=16.0)
    build_simulated_set(6, tmp_path / "set", config, ("pan", "painter"))
    source = ClipSet(tmp_path / "set").source(square)
    names = [source[index].clip_id.partition("-")[0] for index in range(len(source))]
    assert sorted(names) == ["painter"] * 3 + ["pan"] * 3
    wider = dataclasses.replace(config, buckets=(wide,))
    with pytest.raises(ConfigError, match="bucket 17x32x40 is none"):
        build_simulated_set(6, tmp_path / "other", wider, ("pan",))
    assert not (tmp_path / "other").exists()
