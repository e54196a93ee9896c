"""`sora train`: killed in the middle, a run continues to the same bits; and its sentences."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx

from sora_jax.assemble import dit_run
from sora_jax.checkpoints import CheckpointError, Checkpoints, named
from sora_jax.cli.data import build_world_set
from sora_jax.cli.train import train_stage
from sora_jax.config import load_experiment
from sora_jax.data.sources import ClipSet
from sora_jax.experiment import Experiment
from sora_jax.networks import load_run, make_generator, make_vae
from sora_jax.programs import lowered_step
from sora_jax.run_directory import open_directory
from sora_jax.sharding.mesh import MeshConfig
from sora_jax.train.loop import train
from sora_jax.train.optimizer import make_optimizer
from sora_jax.train.programs import lower_step
from sora_jax.train.state import abstract_state
from tests.tiny import one_device_mesh

EXPERIMENT = """
import dataclasses
from benchmarks import tiny_run
from sora_jax.data.buckets import ShapeClass
from sora_jax.experiment import DiTStage, Experiment, VAEStage
from sora_jax.sharding.mesh import MeshConfig
from sora_jax.train.optimizer import OptimizerConfig
from sora_jax.train.run import TrainConfig

TRAINING = TrainConfig(
    steps=60, optimizer=OptimizerConfig(peak_rate=1e-3, warmup_steps=10), log_every=5, save_every=20
)


def experiment() -> Experiment:
    tiny = tiny_run.experiment()
    classes = (ShapeClass(16, 4, parts=2, context=1), ShapeClass(4, 12))
    return dataclasses.replace(
        tiny,
        name="killed",
        data=dataclasses.replace(tiny.data, shape_classes=classes),
        vae_stage=VAEStage(training=TRAINING, pixel_frames=20, buckets=("5x16x16",)),
        dit_stage=DiTStage(training=TRAINING),
        mesh=MeshConfig(replica=2, fsdp=2, context=2),
    )
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """An experiment file and a set for it."""
    return made_in(tmp_path_factory.mktemp("given"))


def made_in(directory: Path) -> tuple[Path, Path]:
    path = directory / "killed.py"
    path.write_text(EXPERIMENT)
    experiment = load_experiment(str(path))
    build_world_set(24, directory / "set", experiment.data, experiment.world)
    return path, directory / "set"


def resume(given: tuple[Path, Path], directory: Path, stage: str) -> None:
    """What `sora train` does, in this process."""
    experiment, clips = load_experiment(str(given[0])), ClipSet(given[1])
    open_directory(experiment, clips, directory)
    train_stage(experiment, clips, directory, stage)


@dataclasses.dataclass(frozen=True)
class Whole:
    """A run whose stages nothing stopped, and the batches its second loss was compiled for."""

    directory: Path
    compiled: list[tuple[int, ...]]


@pytest.fixture(scope="module")
def whole(given: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Whole:
    """Both stages, in this process."""
    directory, compiled = tmp_path_factory.mktemp("whole"), []
    resume(given, directory, "vae")
    run = dit_run(load_experiment(str(given[0])), ClipSet(given[1]), directory)

    def loss(model: Any, batch: Any, moment: Any, rows: int) -> Any:
        compiled.append(batch.latents.shape)
        return run.step.loss(model, batch, moment, rows)

    train(dataclasses.replace(run, step=dataclasses.replace(run.step, loss=loss)))
    return Whole(directory, compiled)


def lines(directory: Path, stage: str) -> list[dict[str, Any]]:
    path = directory / stage / "metrics.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def last_state(given: tuple[Path, Path], directory: Path, stage: str) -> dict[str, np.ndarray]:
    """Step, parameters, average and moments of the newest checkpoint, by name."""
    experiment: Experiment = load_experiment(str(given[0]))
    make = {"vae": make_vae, "dit": make_generator}[stage]
    training = getattr(experiment, f"{stage}_stage").training
    optimizer = make_optimizer(training.optimizer, training.steps)

    def make_model(rngs: nnx.Rngs) -> Any:
        return make(experiment, rngs)

    checkpoints = Checkpoints(directory / stage / "checkpoints")
    state = checkpoints.restore(abstract_state(make_model, optimizer, one_device_mesh()))
    checkpoints.close()
    return {name: np.asarray(array) for name, array in named(state).items()}


def sora_train(given: tuple[Path, Path], directory: Path, stage: str) -> list[str]:
    options = {"experiment": given[0], "data": given[1], "workdir": directory, "stage": stage}
    command = [sys.executable, "-m", "sora_jax.cli.train"]
    return command + [f"--{name}={value}" for name, value in options.items()]


def kill_in_the_middle(command: list[str], directory: Path, stage: str) -> None:
    """Starts the command and kills it once it is well past its first checkpoint."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        deadline = time.monotonic() + 240
        while not lines(directory, stage) or lines(directory, stage)[-1]["step"] < 30:
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.005)
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
    assert process.returncode == -signal.SIGKILL


def test_a_killed_run_continues_to_the_same_bits(
    given: tuple[Path, Path], whole: Whole, tmp_path: Path
) -> None:
    """The second stage; tests/launch/test_restarts.py kills the first."""
    directory, stage = tmp_path / "killed", "dit"
    shutil.copytree(whole.directory, directory, ignore=shutil.ignore_patterns("dit"))
    kill_in_the_middle(sora_train(given, directory, stage), directory, stage)
    assert lines(directory, stage)[-1]["step"] < 60

    resume(given, directory, stage)
    expected, found = last_state(given, whole.directory, stage), last_state(given, directory, stage)
    assert expected["step"] == 60
    assert expected.keys() == found.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
    numbers = ("step", "loss", "gradient_norm", "update_norm")
    content = [
        [[line[name] for name in numbers] for line in lines(where, stage)]
        for where in (directory, whole.directory)
    ]
    assert content[0] == content[1]


def test_the_step_is_traced_for_each_shape_class_and_no_other(whole: Whole) -> None:
    """The class in two parts by each replica for itself."""
    assert set(whole.compiled) == {(4, 12, 16), (4, 4, 16)}


def test_sora_compile_makes_the_programs_of_a_run(given: tuple[Path, Path], whole: Whole) -> None:
    """To the letter, so that a run finds those that were made before it."""
    experiment = load_experiment(str(given[0]))
    run = dit_run(experiment, ClipSet(given[1]), whole.directory)
    found, made = set(), set()
    with jax.set_mesh(run.mesh):
        state = run.init()
        for batch, shape_class in zip(run.batches, experiment.data.shape_classes, strict=True):
            found.add(lower_step(run.step, state, batch, run.key).as_text())
            [(lowered, _)], _ = lowered_step(experiment, shape_class, run.mesh)
            made.add(lowered.as_text())
    assert len(found) == 2
    assert found == made


def test_a_directory_of_another_config_is_refused(given: tuple[Path, Path], whole: Whole) -> None:
    command = [*sora_train(given, whole.directory, "dit"), "--set=dit.depth=3"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    (sentence,) = result.stderr.splitlines()
    assert f"{whole.directory} holds a run of config" in sentence


def test_the_transformer_waits_for_the_autoencoder(
    given: tuple[Path, Path], tmp_path: Path
) -> None:
    command = sora_train(given, tmp_path / "early", "dit")
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "train the autoencoder first" in result.stderr.splitlines()[-1]


def test_eight_devices_take_part(whole: Whole) -> None:
    assert jax.device_count() == 8
    checkpoints = Checkpoints(whole.directory / "dit" / "checkpoints")
    meta = checkpoints.meta()
    checkpoints.close()
    assert meta["mesh"] == {"replica": 2, "fsdp": 2, "context": 2, "tensor": 1}
    assert meta["experiment"]["name"] == "killed"
    assert meta["position"]["step"] == 60


def test_previews_reach_tensorboard(whole: Whole) -> None:
    for stage, name in (("vae", b"reconstruction/3"), ("dit", b"sample/3")):
        events = b"".join(
            x.read_bytes() for x in (whole.directory / stage / "tensorboard").iterdir()
        )
        assert name in events
        assert events.count(b"GIF89a") == 4


def test_a_run_is_restored_over_any_mesh(given: tuple[Path, Path], whole: Whole) -> None:
    saved = last_state(given, whole.directory, "dit")
    run = load_run(whole.directory, MeshConfig(fsdp=2, tensor=4))
    assert dict(run.mesh.shape) == {"replica": 1, "fsdp": 2, "context": 1, "tensor": 4}
    for name, array in named(run.generator).items():
        np.testing.assert_array_equal(np.asarray(array), saved[f"ema.{name}"], err_msg=name)


def test_a_checkpoint_of_another_config_is_refused(whole: Whole, tmp_path: Path) -> None:
    directory = tmp_path / "edited"
    shutil.copytree(whole.directory, directory)
    path = directory / "config.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 7'))
    with pytest.raises(CheckpointError, match="is of config .*, config.json of"):
        load_run(directory)


def test_a_run_is_sampled_as_another_experiment_of_the_same_training_says(whole: Whole) -> None:
    own = load_run(whole.directory).experiment
    like = dataclasses.replace(
        own,
        mesh=MeshConfig(fsdp=2, context=4),
        sampling=dataclasses.replace(own.sampling, rows=1),
    )
    run = load_run(whole.directory, like=like)
    assert run.experiment == like
    assert run.mesh.shape["context"] == 4
    other = dataclasses.replace(own, seed=own.seed + 1, name="other")
    with pytest.raises(CheckpointError, match="and other trains .*: name an experiment that"):
        load_run(whole.directory, like=other)
