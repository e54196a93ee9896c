"""An autoencoder with what judges it: resumed to the bit, used without its judges, started from."""

import dataclasses
import shutil
from pathlib import Path

import jax
import numpy as np
import pytest

from benchmarks import tiny_run
from sora_jax.assemble import vae_run
from sora_jax.checkpoints import CheckpointError, Checkpoints, named
from sora_jax.cli.data import build_world_set
from sora_jax.cli.train import train_stage
from sora_jax.data.sources import ClipSet
from sora_jax.experiment import Experiment, VAEStage
from sora_jax.models.discriminator import DiscriminatorConfig
from sora_jax.models.inflation import inflate
from sora_jax.models.vae import VAE
from sora_jax.networks import averaged_vae, load_vae
from sora_jax.run_directory import open_directory
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.started import started_from
from sora_jax.train.optimizer import OptimizerConfig
from sora_jax.train.run import TrainConfig
from sora_jax.train.vae_losses import AdversarialConfig, VAELossConfig

ADVERSARIAL = AdversarialConfig(
    DiscriminatorConfig(width=4, layers=2),
    warmup_steps=2,
    r1=0.1,
    optimizer=OptimizerConfig(peak_rate=1e-3, warmup_steps=1),
)
TRAINING = TrainConfig(8, OptimizerConfig(peak_rate=1e-3, warmup_steps=1), save_every=4)


def experiment(*, bucket: str, judged: bool) -> Experiment:
    loss = VAELossConfig(adversarial=ADVERSARIAL if judged else None)
    stage = VAEStage(TRAINING, loss, pixel_frames=40, buckets=(bucket,))
    return dataclasses.replace(tiny_run.experiment(), vae_stage=stage, mesh=MeshConfig(fsdp=8))


VIDEO, IMAGES = (
    experiment(bucket="5x16x16", judged=True),
    experiment(bucket="1x16x16", judged=False),
)


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> ClipSet:
    directory = tmp_path_factory.mktemp("data") / "set"
    build_world_set(8, directory, VIDEO.data, VIDEO.world)
    return ClipSet(directory)


def trained(
    experiment: Experiment, clips: ClipSet, directory: Path, start: Path | None = None
) -> Path:
    open_directory(experiment, clips, directory)
    train_stage(experiment, clips, directory, "vae", start=start)
    return directory


@pytest.fixture(scope="module")
def judged(clips: ClipSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(VIDEO, clips, tmp_path_factory.mktemp("judged") / "run")


@pytest.fixture(scope="module")
def images(clips: ClipSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(IMAGES, clips, tmp_path_factory.mktemp("images") / "run")


def last_state(directory: Path, clips: ClipSet) -> dict[str, np.ndarray]:
    run = vae_run(VIDEO, clips, directory)
    checkpoints = Checkpoints(directory / "vae" / "checkpoints")
    state = checkpoints.restore(run.abstract())
    checkpoints.close()
    return {name: np.asarray(array) for name, array in named(state).items()}


def test_a_judged_run_goes_on_to_the_same_bits(
    judged: Path, clips: ClipSet, tmp_path: Path
) -> None:
    whole = last_state(judged, clips)
    assert any("discriminator" in name for name in whole)
    shutil.copytree(judged, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "vae" / "checkpoints" / "8")
    resumed = last_state(trained(VIDEO, clips, tmp_path / "run"), clips)
    assert resumed.keys() == whole.keys()
    for name, array in whole.items():
        np.testing.assert_array_equal(resumed[name], array, err_msg=name)


def test_a_judged_autoencoder_is_restored_without_its_judges(judged: Path, clips: ClipSet) -> None:
    vae, _, step = load_vae(VIDEO, judged, make_mesh(MeshConfig()))
    assert step == 8
    average = last_state(judged, clips)
    for name, array in named(vae).items():
        np.testing.assert_array_equal(array, average[f"ema.vae.{name}"])


def test_a_run_starts_from_the_images_of_another(
    images: Path, clips: ClipSet, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = started_from(vae_run(VIDEO, clips, tmp_path), VIDEO, images)
    with jax.set_mesh(run.mesh):
        state = run.init()
    assert "step 8, of images, inflated" in capsys.readouterr().out
    vae, _ = averaged_vae(IMAGES, images, run.mesh)
    image = jax.random.uniform(jax.random.key(0), (1, 1, 16, 16, 3), minval=-1)
    of_image, of_still = vae.encode(image)[0], state.model.vae.encode(image.repeat(5, 1))[0]
    np.testing.assert_allclose(of_still, of_image.repeat(2, 1), rtol=1e-4, atol=1e-5)
    for mine, average in zip(*map(jax.tree.leaves, (state.model.vae, state.ema.vae)), strict=True):
        np.testing.assert_array_equal(mine, average)
    assert run.meta["started_from"] != run.meta["fingerprint"]


def test_what_it_started_from_is_trained_on(
    images: Path, judged: Path, clips: ClipSet, tmp_path: Path
) -> None:
    directory = trained(VIDEO, clips, tmp_path / "run", start=images)
    vae, step = averaged_vae(VIDEO, directory, make_mesh(MeshConfig()))
    before, _ = averaged_vae(IMAGES, images, make_mesh(MeshConfig()))
    fresh, _ = averaged_vae(VIDEO, judged, make_mesh(MeshConfig()))
    assert step == 8

    def distance(one: VAE, other: VAE) -> float:
        leaves = zip(*map(jax.tree.leaves, (one, other)), strict=True)
        return sum(float(abs(a - b).sum()) for a, b in leaves)

    assert 0 < distance(vae, inflate(before)) < 0.2 * distance(vae, fresh)


def test_a_run_of_another_autoencoder_is_no_start(images: Path, clips: ClipSet) -> None:
    wider = dataclasses.replace(VIDEO, vae=dataclasses.replace(VIDEO.vae, channels=5))
    run = vae_run(VIDEO, clips, images)
    with pytest.raises(CheckpointError, match=r"which has channels = \d: give both"):
        started_from(run, wider, images)
