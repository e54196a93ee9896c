"""A run evaluated: what is printed, written, merged and kept."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sora_jax import evaluation
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.data.build import SourceClip, build_set
from sora_jax.data.sources import ClipSet
from sora_jax.diffusion.times import TimesConfig
from sora_jax.errors import UserError
from sora_jax.eval.evaluator import EvaluationConfig
from sora_jax.evaluation import Asked, add_to_history, evaluate_run, write_metrics
from sora_jax.sample.denoise import SamplingConfig
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

    def load(directory: Path, *, step: int | None, parameters: str, **_: Any) -> SimpleNamespace:
        return SimpleNamespace(
            experiment=experiment,
            directory=directory,
            fingerprints={"experiment": "abc", "vae": "abc@1", "dit": f"abc@{step or 2}"},
            step=step or 2,
            parameters=parameters,
            bytes_read=1_234,
        )

    monkeypatch.setattr(evaluation, "load_run", load)
    sampler = tiny_sampler(("a red circle",), sampling, TimesConfig())
    monkeypatch.setattr(evaluation, "make_sampler", lambda run: sampler)
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


def test_scores_of_the_world_are_printed_written_and_reported(
    run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = evaluate_run(Asked(run_directory, run_directory)).metrics
    saved = json.loads((run_directory / "metrics.json").read_text())
    assert saved == {
        "version": 1,
        "checkpoint": "abc@2",
        "step": 2,
        "params": "ema",
        "scored_on": "scenes of the world with seeds 1000000 to 1000003",
        **metrics,
    }
    [line] = (run_directory / "evaluations.jsonl").read_text().splitlines()
    assert json.loads(line) == saved
    assert "text_to_video/floor_shuffled/colour_accuracy" in saved
    assert saved["vae/ssim/low"] <= saved["vae/ssim"] <= saved["vae/ssim/high"]
    report = (run_directory / "report.html").read_text()
    assert "seeds 1000000 to 1000003" in report
    assert "abc@2" in report
    assert "ema, 1,234 bytes read" in report
    assert "dit: loss" in report
    printed = capsys.readouterr().out
    assert "Text to video" in printed
    assert "ema of abc@2: 1,234 bytes read" in printed


def test_a_set_is_scored_in_place_of_the_world(run_directory: Path, clip_set: ClipSet) -> None:
    metrics = evaluate_run(Asked(run_directory, run_directory, clips=clip_set)).metrics
    assert "nearest/accuracy" in metrics
    assert not any(name.startswith("text_to") for name in metrics)
    assert clip_set.manifest.id in (run_directory / "report.html").read_text()


def test_suites_of_one_checkpoint_add_up_and_another_one_begins_anew(
    run_directory: Path, tmp_path: Path
) -> None:
    output = tmp_path / "elsewhere"
    for suite in ("loss", "reconstruction"):
        evaluate_run(Asked(run_directory, output, (suite,)), step=1)
    first = json.loads((output / "metrics.json").read_text())
    assert {"held_out/loss", "vae/ssim"} <= first.keys()
    evaluate_run(Asked(run_directory, output, ("loss",)), step=2)
    second = json.loads((output / "metrics.json").read_text())
    assert second["step"] == 2
    assert "vae/ssim" not in second
    lines = [json.loads(line) for line in (output / "evaluations.jsonl").read_text().splitlines()]
    assert lines == [first, second]
    assert "Over the steps of training" in (output / "report.html").read_text()


def test_what_was_scored_is_not_scored_again(
    run_directory: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = Asked(run_directory, run_directory, ("loss", "animation"))
    first = evaluate_run(asked)
    assert "loss: 2 of 2 clips to score" in capsys.readouterr().out
    (shard,) = (run_directory / "evaluation/ema-2/shards").glob("animate-*/00000.npz")
    shard.write_bytes(shard.read_bytes()[:-40])
    assert evaluate_run(asked) == first
    printed = capsys.readouterr().out
    assert "loss: " not in printed
    assert "animate: 2 of 2 clips to score" in printed
    evaluate_run(Asked(run_directory, run_directory, ("loss",), parameters="raw"))
    assert "loss: 2 of 2 clips to score" in capsys.readouterr().out


def test_dimensions_of_vbench_are_written_as_its_tool_writes_them(run_directory: Path) -> None:
    metrics = evaluate_run(Asked(run_directory, run_directory, ("vbench",))).metrics
    written = json.loads((run_directory / "vbench_results.json").read_text())
    mean, videos = written["temporal_flickering"]
    assert mean == pytest.approx(metrics["text_to_video/vbench/temporal_flickering"])
    assert len(videos) == 2
    assert videos[0]["video_path"].endswith("-0.mp4")
    assert set(written) == {
        "temporal_flickering",
        "motion_smoothness_dis",
        "dynamic_degree_dis",
        "subject_consistency_pixels",
        "quality_4_of_7",
    }
    assert "quality" in (run_directory / "report.html").read_text()


def test_metrics_of_other_kinds_stay_beside_those_of_a_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    write_metrics(path, {"a": 1.0}, {"step": 3})
    write_metrics(path, {"wall_seconds": 9.0})
    write_metrics(path, {"a": 2.0}, {"step": 3})
    assert json.loads(path.read_text()) == {"step": 3, "a": 2.0, "wall_seconds": 9.0}
    write_metrics(path, {"a": 2.0}, {"step": 4})
    assert json.loads(path.read_text()) == {"step": 4, "a": 2.0}


@pytest.mark.parametrize("content", ["{", "\xff"])
def test_files_that_are_no_json_are_left_alone(tmp_path: Path, content: str) -> None:
    path = tmp_path / "metrics.json"
    path.write_text(content, encoding="latin-1")
    with pytest.raises(UserError, match=r"metrics\.json is not JSON"):
        write_metrics(path, {"a": 1.0})
    with pytest.raises(UserError, match=r"metrics\.json is not JSON lines"):
        add_to_history(path, {"step": 1}, {"a": 1.0})
    assert path.read_text(encoding="latin-1") == content
