"""Run directories: of one experiment and one set, and a sentence for each that is not."""

import dataclasses
import json
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np
import pytest

from sora_jax.assemble import dit_run
from sora_jax.checkpoints import CheckpointError
from sora_jax.cli.data import build_world_set
from sora_jax.cli.train import train_stage
from sora_jax.config import ConfigError, load, load_experiment
from sora_jax.data.pipeline import own_rows
from sora_jax.data.sources import ClipSet
from sora_jax.experiment import Experiment
from sora_jax.networks import load_run, load_vae
from sora_jax.run_directory import open_directory
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.sharding.rules import rows_sharding
from sora_jax.types import EncodedBatch
from tests.tiny import one_device_mesh

EXPERIMENT: Experiment = load_experiment("demo")
TINY = (
    "vae.widths=(8,)",
    "vae.folds=((4,4),)",
    "vae_stage.training.steps=1",
    "vae_stage.pixel_frames=72",
    "mesh.fsdp=2",
    "mesh.context=4",
    # Fewer rows than clips, one that does not divide them, and one that two images share.
    "data.shape_classes=(ShapeClass(rows=2, tokens=32, clips=2),"
    "ShapeClass(rows=4, tokens=48, context=2))",
)


def clips(model: bytes = b"tokens") -> Any:
    return SimpleNamespace(directory="set", tokenizer=SimpleNamespace(model=model))


def test_a_run_directory_keeps_its_experiment_and_its_tokenizer(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    for _ in range(2):
        open_directory(EXPERIMENT, clips(), directory)
    assert load(Experiment, directory / "config.json") == EXPERIMENT
    assert (directory / "tokenizer.model").read_bytes() == b"tokens"


def test_another_experiment_or_another_set_is_refused(tmp_path: Path) -> None:
    open_directory(EXPERIMENT, clips(), tmp_path)
    with pytest.raises(ConfigError, match="holds a run of config .* this one is"):
        open_directory(dataclasses.replace(EXPERIMENT, seed=1), clips(), tmp_path)
    with pytest.raises(ConfigError, match="holds a run on another set"):
        open_directory(EXPERIMENT, clips(b"others"), tmp_path)


def test_a_directory_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot make a run in .*: Not a directory"):
        open_directory(EXPERIMENT, clips(), tmp_path / "file" / "run")


def test_what_is_not_trained_cannot_be_loaded(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="is no run: it has no config.json"):
        load_run(tmp_path)
    with pytest.raises(CheckpointError, match="latents.json is missing: train the autoencoder"):
        load_vae(EXPERIMENT, tmp_path, one_device_mesh())


def test_rows_that_the_devices_do_not_divide_are_told() -> None:
    sharding = rows_sharding(make_mesh(MeshConfig()))
    assert own_rows(sharding, 16) == list(range(16))
    with pytest.raises(ConfigError, match="8 devices does not divide the 28 rows"):
        own_rows(sharding, 28)


def test_latents_made_once_are_those_made_batch_by_batch(tmp_path: Path) -> None:
    experiment = load_experiment("demo", TINY)
    build_world_set(36, tmp_path / "set", experiment.data, experiment.world)
    clips = ClipSet(tmp_path / "set")
    run = tmp_path / "run"
    open_directory(experiment, clips, run)
    train_stage(experiment, clips, run, "vae")
    again, once = (
        dataclasses.replace(
            experiment, dit_stage=dataclasses.replace(experiment.dit_stage, encode_once=choice)
        )
        for choice in (False, True)
    )
    runs = [dit_run(each, clips, run) for each in (again, once)]
    assert isinstance(next(dit_run(once, clips, run).data)[1], EncodedBatch)
    with jax.set_mesh(runs[0].mesh):
        for _ in range(6):
            one, other = (run.prepare(next(run.data)) for run in runs)
            assert one.tokens == other.tokens
            jax.tree.map(partial(np.testing.assert_allclose, atol=1e-5), one.batch, other.batch)

    # Kept, and made anew when they are another autoencoder's or not whole.
    kept = run / "dit" / "latents"

    def written() -> list[int]:
        dit_run(once, clips, run)
        return [path.stat().st_mtime_ns for path in sorted(kept.glob("*.npy"))]

    times = written()
    assert written() == times
    made_by = json.loads((kept / "made_by.json").read_text())
    (kept / "made_by.json").write_text(json.dumps({**made_by, "mean": [0.0]}))
    assert all(now > before for now, before in zip(written(), times, strict=True))
    assert json.loads((kept / "made_by.json").read_text()) == made_by
    times = written()
    (kept / "made_by.json").unlink()
    assert written() != times


def test_what_only_changes_how_a_run_is_computed_keeps_its_fingerprint() -> None:
    changes = ("vae.convolution=direct", "dit.unroll=False", "dit_stage.encode_once=False")
    assert load_experiment("demo", changes).trained() == EXPERIMENT.trained()
    assert load_experiment("demo", ("dit.depth=5",)).trained() != EXPERIMENT.trained()
