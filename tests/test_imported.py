"""An imported autoencoder is a run: transformers are trained on it, and others start from it."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import tiny_run
from experiments import wan_vae
from sora_jax import config as configs
from sora_jax.assemble import vae_run
from sora_jax.checkpoints import CheckpointError
from sora_jax.cli.data import build_world_set
from sora_jax.cli.train import train_stage
from sora_jax.data.sources import ClipSet
from sora_jax.errors import ConfigError, UserError
from sora_jax.experiment import DiTStage, Experiment
from sora_jax.imported import import_wan_vae
from sora_jax.models.wan_vae import WanVAEConfig
from sora_jax.networks import experiment_of, load_vae
from sora_jax.run_directory import open_directory
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.started import started_from
from sora_jax.train.optimizer import OptimizerConfig
from sora_jax.train.run import TrainConfig
from sora_jax.weights.wan_vae import read_wan_vae
from tests import tiny_wan_vae as tiny

VAE = WanVAEConfig(tiny.CHANNELS, tiny.WIDTH, tiny.MULTIPLIERS, tiny.HALVE_FRAMES, tiny.BLOCKS)


def experiment() -> Experiment:
    own = tiny_run.experiment()
    training = TrainConfig(2, OptimizerConfig(peak_rate=1e-3, warmup_steps=1), evaluate_every=10)
    return dataclasses.replace(
        own,
        vae=VAE,
        dit=dataclasses.replace(own.dit, patch=1),
        dit_stage=DiTStage(training, encode_once=True),
        mesh=MeshConfig(fsdp=8),
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write_folder(tmp_path_factory.mktemp("wan") / "vae")


@pytest.fixture(scope="module")
def run(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("imported") / "run"
    said = import_wan_vae(source, directory, experiment())
    assert said.startswith(f"{directory}: the autoencoder of {source}")
    return directory


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    directory = tmp_path_factory.mktemp("data") / "set"
    build_world_set(8, directory, experiment().data, experiment().world)
    return ClipSet(directory)


def test_a_run_has_the_weights_and_the_statistics(source: Path, run: Path) -> None:
    vae, statistics, step = load_vae(experiment_of(run), run, make_mesh(MeshConfig()))
    for one, other in zip(*map(jax.tree.leaves, (vae, read_wan_vae(source)[0])), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_allclose(statistics.mean, tiny.MEAN)
    np.testing.assert_allclose(statistics.deviation, tiny.DEVIATION)
    assert step == 0
    assert not list(run.parent.glob(".*"))


@pytest.mark.slow
def test_a_transformer_is_trained_on_it(run: Path, clips: ClipSet) -> None:
    open_directory(experiment(), clips, run)
    train_stage(experiment(), clips, run, "dit")
    assert (run / "dit" / "checkpoints" / "2").is_dir()


def test_it_is_trained_further_in_another_run(run: Path, clips: ClipSet, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="give another --workdir and this run as --start"):
        train_stage(experiment(), clips, run, "vae")
    other = started_from(vae_run(experiment(), clips, tmp_path), experiment(), run)
    with jax.set_mesh(other.mesh):
        state = other.init()
    vae, _, _ = load_vae(experiment(), run, other.mesh)
    for one, other in zip(*map(jax.tree.leaves, (state.model, vae)), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_cannot_be_a_run_is_refused(source: Path, run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is there already"):
        import_wan_vae(source, run, experiment())
    for other in (tiny_run.experiment(), wan_vae.experiment()):
        with pytest.raises(ConfigError, match=r"is for another autoencoder than .* vae=WanVAECon"):
            import_wan_vae(source, tmp_path / "run", other)
    assert not list(tmp_path.iterdir())


def test_an_experiment_of_either_autoencoder_is_saved_and_read(tmp_path: Path) -> None:
    for made in (tiny_run.experiment(), experiment(), wan_vae.experiment()):
        configs.save(made, tmp_path / "config.json")
        assert configs.load(Experiment, tmp_path / "config.json") == made
        saved = json.loads((tmp_path / "config.json").read_text())["vae"]
        # One that was saved before there was a choice named none.
        assert saved.get("class") == (None if made == tiny_run.experiment() else "WanVAEConfig")
    wide = configs.override(wan_vae.experiment(), "vae.recompute=true")
    assert configs.fingerprint(wide.trained()) == configs.fingerprint(
        wan_vae.experiment().trained()
    )
