"""Held-out clips scored while a run trains: what `sora evaluate` finds, under the same names."""

import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.tiny_run import experiment as tiny_experiment
from sora_jax.checkpoints import Checkpoints, RetentionConfig
from sora_jax.cli.data import build_world_set
from sora_jax.cli.train import train_stage
from sora_jax.data.sources import ClipSet
from sora_jax.errors import UserError
from sora_jax.evaluation import Asked, evaluate_run
from sora_jax.experiment import Experiment
from sora_jax.held_out import HeldOut, held_out_clips
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


def test_a_run_logs_what_an_evaluation_finds(tmp_path: Path) -> None:
    made, run = experiment(), tmp_path / "run"
    for name, seed in (("train", 0), ("held_out", 500)):
        build_world_set(24, tmp_path / name, made.data, made.world, seed)
    clips, others = ClipSet(tmp_path / "train"), ClipSet(tmp_path / "held_out")
    open_directory(made, clips, run)
    held_out = HeldOut(held_out_clips(made, others), every=4)
    logged: dict[str, dict[str, dict[int, float]]] = {}
    for stage in ("vae", "dit"):
        train_stage(made, clips, run, stage, held_out=held_out)
        for line in (run / stage / "metrics.jsonl").read_text().splitlines():
            values = json.loads(line)
            for name, value in values.items():
                logged.setdefault(stage, {}).setdefault(name, {})[values["step"]] = value
    assert sorted(logged["vae"]["vae/psnr_db"]) == [4, 8, 12]
    losses = logged["dit"]["held_out/loss"]
    best = min(losses, key=losses.__getitem__)
    checkpoints = Checkpoints(run / "dit" / "checkpoints")
    assert checkpoints.steps() == sorted({12, best}, reverse=True)
    for parameters, prefix in (("ema", ""), ("raw", "raw/")):
        asked = Asked(run, tmp_path / parameters, ("loss",), parameters, others)
        for name, value in evaluate_run(asked, 12).metrics.items():
            assert logged["dit"][f"{prefix}{name}"][12] == pytest.approx(value, rel=1e-5), name
    asked = Asked(run, tmp_path / "vae", ("reconstruction",), clips=others)
    assert logged["vae"]["vae/psnr_db"][12] == evaluate_run(asked).metrics["vae/psnr_db"]


def test_a_set_of_other_sizes_is_refused(tmp_path: Path) -> None:
    made = experiment()
    build_world_set(4, tmp_path / "set", made.data, made.world)
    buckets = tuple(dataclasses.replace(bucket, height=8) for bucket in made.data.buckets)
    stage = dataclasses.replace(made.vae_stage, buckets=())
    data = dataclasses.replace(made.data, buckets=buckets)
    other = dataclasses.replace(made, data=data, vae_stage=stage)
    with pytest.raises(UserError, match="has no clip of the sizes that the run is made for"):
        held_out_clips(other, ClipSet(tmp_path / "set"))
