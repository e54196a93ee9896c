"""A run as an object: clips of any duration, which are written to files."""

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sora_jax.generator
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.diffusion.patterns import ConditioningConfig
from sora_jax.diffusion.times import TimesConfig
from sora_jax.generator import Generator
from sora_jax.models.vae import VAEConfig
from sora_jax.sample.generate import SamplingConfig
from sora_jax.sample.metadata import read_metadata
from tests.tiny_models import tiny_sampler


@pytest.fixture
def generator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Generator:
    data = DataConfig(buckets=(Bucket(13, 16, 24),), shape_classes=(ShapeClass(8, 32),), fps=8.0)
    diffusion = SimpleNamespace(conditioning=ConditioningConfig(given_noise=0.2))
    experiment: Any = SimpleNamespace(
        name="tiny",
        data=data,
        vae=VAEConfig(folds=((4, 4),), widths=(8,)),
        dit_stage=SimpleNamespace(diffusion=diffusion),
    )
    run: Any = SimpleNamespace(
        experiment=experiment, directory=tmp_path, fingerprints={}, step=20, parameters="ema"
    )
    sampler = tiny_sampler(["a star"], SamplingConfig(steps=2, rows=1), TimesConfig())
    monkeypatch.setattr(sora_jax.generator, "make_sampler", lambda run, **changes: sampler)
    return Generator(run)


@pytest.mark.parametrize(
    ("frames", "task", "given"), [(0, "generate", 0), (1, "animate", 1), (7, "extend", 5)]
)
def test_long_goes_on_from_nothing_an_image_or_a_video(
    generator: Generator, tmp_path: Path, frames: int, task: str, given: int
) -> None:
    start = np.zeros((frames, 32, 48, 3), np.uint8) if frames else None
    path = generator.long(tmp_path / "a.mp4", "a star", seconds=3, start=start, seed=4)
    said = read_metadata(path)
    assert (said["task"], said["frames"], said["seed"]) == (task, 24, 4)
    field = said["field"]
    assert (field["given_frames"], field["window_frames"], field["windows"]) == (given, 13, 3)
    assert (field["context"], field["history_level"]) == (5, 0.1)


def test_long_takes_an_image_as_one(generator: Generator, tmp_path: Path) -> None:
    image = np.zeros((16, 24, 3), np.uint8)
    how = {"levels": 2, "story": ((1.0, "a circle"),), "window": 9, "context": 1}
    said = read_metadata(generator.long(tmp_path / "a.mp4", seconds=2, start=image, **how))
    assert (said["task"], len(said["field"]["levels"]), said["frames"]) == ("animate", 3, 16)
    asked = generator.long_request(generator.request(), 40)
    assert dataclasses.asdict(asked)["history_level"] == 0.1
