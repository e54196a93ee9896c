"""Latents on disk by a run's autoencoder: trained on as the clips are, and by no other run."""

import dataclasses
import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from sora_jax.assemble import dit_run, vae_run
from sora_jax.cli import encode as command
from sora_jax.cli.data import build_world_set
from sora_jax.cli.train import train_stage
from sora_jax.config import load_experiment
from sora_jax.data.schema import DataError, Record
from sora_jax.data.sources import ClipSet
from sora_jax.encoded import encode_set, encoded_set, vae_id
from sora_jax.experiment import Experiment
from sora_jax.models.latents import stored_tokens
from sora_jax.networks import load_vae, make_vae
from sora_jax.run_directory import open_directory
from sora_jax.sharding.mesh import make_mesh
from sora_jax.train.loop import train
from tests.tiny import one_device_mesh, randomised

TINY = (
    "vae.widths=(8,)",
    "vae.folds=((4,4),)",
    "vae_stage.training.steps=1",
    "vae_stage.pixel_frames=72",
    "mesh.fsdp=2",
    "mesh.context=4",
    "dit.depth=1",
    "dit_stage.training.steps=6",
    "dit_stage.training.log_every=1",
    "dit_stage.training.evaluate_every=100",
    # Rows that do not divide the clips, and one class, so that little is compiled.
    "data.buckets=(Bucket(frames=5, height=32, width=32), Bucket(frames=5, height=24, width=40))",
    "vae_stage.buckets=()",
    "data.shape_classes=(ShapeClass(rows=4, tokens=32, context=2),)",
)
CLIPS = 22


@dataclasses.dataclass(frozen=True)
class Trained:
    """A run with an autoencoder, the clips it is of, and their latents by it."""

    experiment: Experiment
    clips: ClipSet
    directory: Path
    latents: ClipSet


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    directory = tmp_path_factory.mktemp("encoded")
    experiment = load_experiment("demo", TINY)
    build_world_set(CLIPS, directory / "set", experiment.data, experiment.world)
    clips, run = ClipSet(directory / "set"), directory / "run"
    open_directory(experiment, clips, run)
    train_stage(experiment, clips, run, "vae")
    command.FLAGS(["sora encode"])
    names = {"workdir": run, "data": clips.directory, "output": directory / "latents"}
    for name, path in names.items():
        command.FLAGS[name].value = str(path)
    command.main(["sora encode"])
    yield Trained(experiment, clips, run, ClipSet(directory / "latents"))
    command.FLAGS.unparse_flags()


def test_latents_on_disk_are_those_made_once_rounded(trained: Trained) -> None:
    experiment, mesh = trained.experiment, make_mesh(trained.experiment.mesh)
    vae, statistics, _ = load_vae(experiment, trained.directory, mesh)
    once = encoded_set(experiment, trained.clips, trained.directory, mesh, vae, statistics)
    tokens = partial(stored_tokens, statistics, experiment.dit.patch)
    for bucket, expected in once.items():
        size = experiment.data.buckets[bucket]
        source = trained.latents.source(size)
        assert len(source) == trained.clips.manifest.records(size.name) == len(expected)
        means = np.stack([source.clip(index)[1] for index in range(len(source))])
        # bfloat16 has 8 bits: what is off is half a unit of the last place of the mean.
        off = (
            np.abs(means.astype(np.float32)).max() * 2**-8 / np.asarray(statistics.deviation).min()
        )
        np.testing.assert_allclose(tokens(means), expected, atol=off + 1e-5, rtol=0)
        assert np.abs(expected).max() > 100 * off


def test_latents_made_once_need_every_record(
    trained: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(record: Record) -> np.ndarray:
        raise ValueError("it is damaged")

    monkeypatch.setattr("sora_jax.data.sources.decode_record", fails)
    mesh = make_mesh(trained.experiment.mesh)
    vae, statistics, _ = load_vae(trained.experiment, trained.directory, mesh)
    with pytest.raises(DataError, match="it is damaged; dit_stage.encode_once needs every record"):
        encoded_set(trained.experiment, trained.clips, tmp_path, mesh, vae, statistics)
    with pytest.raises(DataError, match=r"\d+ of 22 records of .* cannot be used, too many"):
        encode_set(trained.experiment, trained.clips, tmp_path / "latents", mesh, vae)


def test_on_one_device_the_latents_are_the_same(trained: Trained, tmp_path: Path) -> None:
    mesh = one_device_mesh()
    vae, _, _ = load_vae(trained.experiment, trained.directory, mesh)
    manifest = encode_set(trained.experiment, trained.clips, tmp_path / "latents", mesh, vae)
    ours, theirs = ClipSet(tmp_path / "latents"), trained.latents
    assert manifest.latents == theirs.manifest.latents  # of the same autoencoder
    for size in trained.experiment.data.buckets:
        for index in range(len(theirs.source(size))):
            one, other = ours.source(size)[index], theirs.source(size)[index]
            assert one.clip_id == other.clip_id
            for name in ("mean", "log_variance"):
                values = (getattr(each, name).astype(np.float32) for each in (one, other))
                np.testing.assert_allclose(
                    *values, atol=1e-5, rtol=2**-7
                )  # a unit, where sums differ


def test_training_on_them_comes_to_the_losses_of_encoding_once(
    trained: Trained, tmp_path: Path
) -> None:
    stage = dataclasses.replace(trained.experiment.dit_stage, encode_once=True)
    once = dataclasses.replace(trained.experiment, dit_stage=stage)
    found = {}
    for name, clips in (("clips", trained.clips), ("latents", trained.latents)):
        run = tmp_path / name
        open_directory(once, clips, run)
        (run / "vae").symlink_to(trained.directory / "vae")
        train(dataclasses.replace(dit_run(once, clips, run), evaluators=()))  # and no preview
        lines = (run / "dit" / "metrics.jsonl").read_text().splitlines()
        found[name] = [json.loads(line)["loss"] for line in lines if "loss" in json.loads(line)]
    print(found)
    assert len(found["clips"]) == 6
    np.testing.assert_allclose(found["latents"], found["clips"], rtol=2**-8)


def test_another_autoencoder_is_refused_by_both_names(trained: Trained, tmp_path: Path) -> None:
    mesh = one_device_mesh()
    other = randomised(lambda rngs: make_vae(trained.experiment, rngs))
    manifest = encode_set(trained.experiment, trained.clips, tmp_path / "latents", mesh, other)
    assert manifest.latents is not None
    own = trained.latents.manifest.latents
    assert own is not None
    assert vae_id(other, mesh) == manifest.latents.vae_id != own.vae_id
    with pytest.raises(
        DataError, match=f"latents of autoencoder {manifest.latents.vae_id}, .* is {own.vae_id}"
    ):
        dit_run(trained.experiment, ClipSet(tmp_path / "latents"), trained.directory)


def test_what_needs_pixels_refuses_latents(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="needs the clips themselves"):
        vae_run(trained.experiment, trained.latents, trained.directory)
    mesh = one_device_mesh()
    vae, _, _ = load_vae(trained.experiment, trained.directory, mesh)
    with pytest.raises(DataError, match="encoding needs the clips themselves"):
        encode_set(trained.experiment, trained.latents, tmp_path, mesh, vae)
    narrower = load_experiment(
        "demo", (*TINY, "data.buckets=(Bucket(frames=5, height=32, width=32),)")
    )
    with pytest.raises(DataError, match="has clips of 5x24x40, which is no bucket of demo"):
        encode_set(narrower, trained.clips, tmp_path, mesh, vae)
    assert jax.process_index() == 0
