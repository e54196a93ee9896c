"""Held-out clips scored while a run trains: what `sora evaluate` finds, under the same names."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest

from benchmarks.tiny_run import experiment as tiny_experiment
from sora_jax.checkpoints import CheckpointError, RetentionConfig
from sora_jax.cli.data import build_world_set
from sora_jax.cli.train import train_stage
from sora_jax.data.sources import ClipSet
from sora_jax.errors import ConfigError, UserError
from sora_jax.eval.examples import longest_examples
from sora_jax.evaluation import Asked, evaluate_run
from sora_jax.experiment import Experiment
from sora_jax.held_out import HeldOut
from sora_jax.networks import saved_steps
from sora_jax.run_directory import open_directory
from sora_jax.sharding.mesh import MeshConfig


def experiment() -> Experiment:
    """Twelve steps that keep the checkpoint of the lowest held-out loss beside the last."""
    tiny, own = tiny_experiment(), RetentionConfig(1, best="held_out/loss", best_is="lowest")
    training = dataclasses.replace(tiny.dit_stage.training, steps=12, save_every=4)
    stages = {
        "vae_stage": dataclasses.replace(tiny.vae_stage, training=training),
        "dit_stage": dataclasses.replace(
            tiny.dit_stage, training=dataclasses.replace(training, retention=own)
        ),
    }
    evaluation = dataclasses.replace(tiny.evaluation, prompts=6)
    return dataclasses.replace(tiny, mesh=MeshConfig(), evaluation=evaluation, **stages)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a set, another one that is held out, and a run that scored it."""
    made, directory = experiment(), tmp_path_factory.mktemp("trained")
    for name, seed in (("train", 0), ("held_out", 500)):
        build_world_set(24, directory / name, made.data, made.world, seed)
    clips, others = ClipSet(directory / "train"), ClipSet(directory / "held_out")
    open_directory(made, clips, directory / "run")
    held_out = HeldOut(longest_examples(others, made.data, made.evaluation.prompts), every=4)
    for stage in ("vae", "dit"):
        train_stage(made, clips, directory / "run", stage, held_out=held_out)
    return directory


def test_a_run_logs_what_an_evaluation_finds(trained: Path, tmp_path: Path) -> None:
    run, others = trained / "run", ClipSet(trained / "held_out")
    logged: dict[str, dict[str, dict[int, float]]] = {}
    for stage in ("vae", "dit"):
        for line in (run / stage / "metrics.jsonl").read_text().splitlines():
            values = json.loads(line)
            for name, value in values.items():
                logged.setdefault(stage, {}).setdefault(name, {})[values["step"]] = value
    assert sorted(logged["vae"]["vae/psnr_db"]) == [4, 8, 12]
    losses = logged["dit"]["held_out/loss"]
    best = min(losses, key=losses.__getitem__)
    assert saved_steps(run) == sorted({12, best})
    for parameters, prefix in (("ema", ""), ("raw", "raw/")):
        asked = Asked(run, tmp_path / parameters, ("loss",), parameters, others)
        for name, value in evaluate_run(asked, 12).metrics.items():
            assert logged["dit"][f"{prefix}{name}"][12] == pytest.approx(value, rel=1e-5), name
    asked = Asked(run, tmp_path / "vae", ("reconstruction",), clips=others)
    assert logged["vae"]["vae/psnr_db"][12] == evaluate_run(asked).metrics["vae/psnr_db"]


def test_what_cannot_be_evaluated_is_said_and_nothing_is_written(
    trained: Path, tmp_path: Path
) -> None:
    run, output = tmp_path / "run", tmp_path / "output"
    shutil.copytree(trained / "run", run)
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7 in .*there are steps .*12"):
        evaluate_run(Asked(run, output), 7)
    with pytest.raises(CheckpointError, match="is no run: it has no config.json"):
        evaluate_run(Asked(trained, output))
    with pytest.raises(ConfigError, match="no suite 'worlds'; did you mean 'world'"):
        evaluate_run(Asked(run, output, ("loss", "worlds")))
    with pytest.raises(UserError, match="cannot read weights of .*I3D"):
        evaluate_run(Asked(run, output, ("loss", "fvd"), i3d=str(tmp_path / "none")))
    for path in (run / "dit" / "checkpoints" / "12" / "ema").rglob("*"):
        if path.is_file() and path.stat().st_size > 4096:
            path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match=r"checkpoints/12 cannot be read"):
        evaluate_run(Asked(run, output), 12)
    assert not output.exists()


def test_a_set_of_other_sizes_is_refused(tmp_path: Path) -> None:
    made = experiment()
    build_world_set(4, tmp_path / "set", made.data, made.world)
    buckets = tuple(dataclasses.replace(bucket, height=8) for bucket in made.data.buckets)
    stage = dataclasses.replace(made.vae_stage, buckets=())
    data = dataclasses.replace(made.data, buckets=buckets)
    other = dataclasses.replace(made, data=data, vae_stage=stage)
    with pytest.raises(UserError, match="has no clip of the sizes that the run was made for"):
        longest_examples(ClipSet(tmp_path / "set"), other.data, 4)
