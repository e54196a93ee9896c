"""Scores of an autoencoder on a set: bucket by bucket, beside resize and codecs, as files."""

import dataclasses
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from benchmarks.tiny_run import experiment as tiny_experiment
from sora_jax import vae_scores
from sora_jax.cli.data import build_world_set
from sora_jax.cli.train import train_stage
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.data.sources import ClipSet
from sora_jax.errors import ConfigError, UserError
from sora_jax.eval.examples import set_examples
from sora_jax.eval.reconstruction import psnr, reconstruct
from sora_jax.eval.vae_measures import Describers
from sora_jax.models.lpips import LPIPS
from sora_jax.networks import experiment_of, load_vae
from sora_jax.run_directory import open_directory
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.vae_scores import codable_buckets, score_autoencoder
from tests import tiny_lpips

BUCKETS = (Bucket(1, 20, 24), Bucket(5, 20, 24), Bucket(4, 16, 16))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a run, and a set of other sizes than it was trained on."""
    made, directory = tiny_experiment(), tmp_path_factory.mktemp("trained")
    training = dataclasses.replace(made.vae_stage.training, steps=4, save_every=4)
    stage = dataclasses.replace(made.vae_stage, training=training)
    made = dataclasses.replace(made, mesh=MeshConfig(), vae_stage=stage)
    build_world_set(12, directory / "train", made.data, made.world, 0)
    clips = ClipSet(directory / "train")
    open_directory(made, clips, directory / "run")
    train_stage(made, clips, directory / "run", "vae")
    others = DataConfig(BUCKETS, (ShapeClass(2, 64),))
    build_world_set(9, directory / "held_out", others, made.world, 500)
    return directory


def test_every_bucket_has_all_measures_and_they_are_those_of_its_clips(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = LPIPS(tiny_lpips.arrays(), "blurred")
    monkeypatch.setattr(vae_scores, "_describers", lambda *_: Describers(model, "tiny"))
    run, clips, output = trained / "run", ClipSet(trained / "held_out"), trained / "scores"
    metrics = score_autoencoder(run, clips, output, most_clips=3)
    experiment = experiment_of(run)
    vae, _, step = load_vae(experiment, run, make_mesh(MeshConfig()))
    for bucket in BUCKETS[:2]:
        truths = [each.video for each in set_examples(clips, [bucket], 3)]
        expected = np.mean(list(map(psnr, reconstruct(vae, truths), truths)))
        assert metrics[f"{bucket.name}/psnr_db"] == pytest.approx(expected, abs=0.01)
        assert metrics[f"{bucket.name}/clips"] == len(truths) == 3
        measures = ["psnr_db", "ssim", "lpips/tiny"]
        measures += ["flicker", "flicker_relative"] if bucket.frames > 1 else []
        for column in ("", "bilinear/", "jpeg/", "av1/"):
            names = [f"{bucket.name}/{column}{measure}" for measure in measures]
            assert all(np.isfinite(metrics[f"{n}{end}"]) for n in names for end in ("", "/low"))
        cells = ((bucket.frames - 1) // 4 + 1) * 5 * 6
        assert metrics[f"{bucket.name}/latent_bytes"] == 4 * cells
        assert f"{bucket.name}/latents/path_ratio" in metrics
    assert not any(name.startswith(("1x20x24/flicker", "4x16x16")) for name in metrics)
    written = json.loads((output / "metrics.json").read_text())
    assert written["step"] == step
    assert {name: written[name] for name in metrics} == metrics
    page = (output / "report.html").read_text()
    shown = capsys.readouterr().out
    for bucket in BUCKETS[:2]:
        decibels = f"{metrics[f'{bucket.name}/av1/psnr_db']:.2f}"
        assert decibels in page
        assert decibels in shown
    assert "4x16x16: left out, for it does not fold" in shown
    with Image.open(io.BytesIO((output / "pictures.png").read_bytes())) as picture:
        assert picture.width == 5 * (168 + 6)  # 24 pixels, seven times, and a gap
        assert picture.height == 6 * (140 + 16 + 6)


def test_a_set_that_it_cannot_code_is_one_sentence(trained: Path) -> None:
    config = tiny_experiment().vae
    for change in ({"folds": ((2, 16),)}, {"folds": ((4, 32),)}):
        with pytest.raises(ConfigError, match=r"has no clips of 1 \+ \dk frames with sides that"):
            codable_buckets(ClipSet(trained / "held_out"), dataclasses.replace(config, **change))


def test_weights_that_are_not_there_are_told_and_given_ones_must_be(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert vae_scores._describers("", "", fvd=True) == Describers()
    shown = capsys.readouterr().out
    assert "without LPIPS: there are no weights of LPIPS of VGG16" in shown
    assert "without the Fréchet video distance: there are no weights of I3D" in shown
    for arguments in ((str(tmp_path / "none"), ""), ("", str(tmp_path / "none"))):
        with pytest.raises(UserError, match="cannot read weights of .*none"):
            vae_scores._describers(*arguments, fvd=True)
