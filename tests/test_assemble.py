"""Run directories: of one experiment and one set, and a sentence for each that is not."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sora_jax.assemble import open_directory
from sora_jax.checkpoints import CheckpointError
from sora_jax.config import ConfigError, load, load_experiment
from sora_jax.data.pipeline import rows_from_sharding
from sora_jax.experiment import Experiment
from sora_jax.networks import load_run, load_vae
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.sharding.rules import rows_sharding
from tests.tiny import one_device_mesh

EXPERIMENT: Experiment = load_experiment("demo")


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
    rows_of = rows_from_sharding(rows_sharding(make_mesh(MeshConfig())))
    assert rows_of(16) == (0, 16)
    with pytest.raises(ConfigError, match="8 devices of the mesh do not divide the 28 rows"):
        rows_of(28)
