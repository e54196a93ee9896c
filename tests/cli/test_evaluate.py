"""`sora evaluate`: metrics merged into a file, and the report beside it."""

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sora_jax.cli import evaluate
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.data.build import SourceClip, build_set
from sora_jax.data.sources import ClipSet
from sora_jax.diffusion.times import TimesConfig
from sora_jax.errors import UserError
from sora_jax.eval.evaluator import EvaluationConfig
from sora_jax.sample.generate import SamplingConfig
from sora_jax.world.scene import WorldConfig
from tests.tiny_models import tiny_sampler

DATA = DataConfig(
    buckets=(Bucket(1, 24, 24), Bucket(5, 24, 24)), shape_classes=(ShapeClass(8, 32),)
)


@pytest.fixture
def run_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a run whose networks are tiny and untrained."""
    sampling = SamplingConfig(steps=2)
    experiment = SimpleNamespace(
        name="tiny",
        data=DATA,
        world=WorldConfig(max_objects=1),
        evaluation=EvaluationConfig(prompts=2, images=2, animations=2, shown=1),
        sampling=sampling,
    )
    run = SimpleNamespace(
        experiment=experiment,
        directory=tmp_path,
        fingerprints={"experiment": "abc", "vae": "abc@1", "dit": "abc@2"},
    )
    monkeypatch.setattr(evaluate, "load_run", lambda directory, embed: run)
    sampler = tiny_sampler(("a red circle",), sampling, TimesConfig())
    monkeypatch.setattr(evaluate, "make_sampler", lambda run: sampler)
    (tmp_path / "dit").mkdir()
    (tmp_path / "dit" / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    return tmp_path


@pytest.fixture
def clip_set(tmp_path: Path) -> ClipSet:
    """Three clips of five frames."""
    generator = np.random.default_rng(0)
    clips = [
        SourceClip(
            f"clip-{n}",
            f"clip-{n}",
            f"clip number {n}",
            generator.integers(0, 256, (5, 24, 24, 3), np.uint8),
            8.0,
        )
        for n in range(3)
    ]
    build_set(iter(clips), tmp_path / "set", DATA)
    return ClipSet(tmp_path / "set")


def test_scores_of_the_world_are_printed_merged_and_reported(
    run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate.write_metrics(run_directory / "metrics.json", {"wall_seconds": 9.0, "vae/ssim": -1.0})
    metrics = evaluate.evaluate_run(run_directory)
    saved = json.loads((run_directory / "metrics.json").read_text())
    assert saved == {"wall_seconds": 9.0, **metrics}
    assert "text_to_video/floor_shuffled/colour_accuracy" in saved
    report = (run_directory / "report.html").read_text()
    assert "seeds 1000000 to 1000003" in report
    assert "abc@2" in report
    assert "dit: loss" in report
    assert "Text to video" in capsys.readouterr().out


def test_a_set_is_scored_in_place_of_the_world(run_directory: Path, clip_set: ClipSet) -> None:
    metrics = evaluate.evaluate_run(run_directory, clip_set)
    assert "nearest/accuracy" in metrics
    assert not any(name.startswith("text_to") for name in metrics)
    assert clip_set.manifest.id in (run_directory / "report.html").read_text()


@pytest.mark.parametrize("content", ["{", "\xff"])
def test_metrics_that_are_no_json_are_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match="metrics.json is not JSON"):
        evaluate.write_metrics(path, {"a": 1.0})
    assert path.read_text(encoding="latin-1") == content


def test_a_run_must_be_named() -> None:
    evaluate.FLAGS(["sora evaluate"])
    with pytest.raises(UserError, match="needs --run"):
        evaluate.main(["sora evaluate"])
