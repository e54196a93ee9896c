"""`sora compare`: one page of what checkpoints make of the same, and how they differ."""

import re
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sora_jax.cli import compare
from sora_jax.errors import UserError
from sora_jax.eval.clip_scores import of_values
from sora_jax.eval.examples import Example
from sora_jax.eval.store import DiskStore
from sora_jax.eval.suite import Found, Suite
from sora_jax.evaluation import Asked, Evaluated
from sora_jax.experiment import Experiment

RNG = np.random.default_rng(0)
EXAMPLES = [
    Example(f"a prompt {n}", RNG.integers(0, 256, (3, 16, 16, 3), np.uint8), 8.0, n)
    for n in range(12)
]
HARDNESS = RNG.normal(0.5, 0.2, 12)


@pytest.fixture(autouse=True)
def evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs whose score is their last digit better, and one that was asked something else."""

    def evaluate(asked: Asked, step: int) -> Evaluated:
        better = 0.01 * step + 0.001 * RNG.normal(size=12)
        scores = {"text_to_video/colour_accuracy": of_values(HARDNESS + better)}

        def find(places: Sequence[int]) -> Found:
            clips = {place: EXAMPLES[place].video for place in (0, 1)}
            return Found(scores, clips={"generated": clips, "true": clips})

        suite = Suite("text_to_video", EXAMPLES, find, settings=asked.directory.name[:3])
        store = DiskStore(asked.output, "model", [suite])
        store.publish(suite, find(range(12)))
        return Evaluated({}, {suite.name: store.place(suite.name)})

    monkeypatch.setattr(compare, "evaluate_run", evaluate)
    monkeypatch.setattr(compare, "saved_steps", lambda directory: [1, 2])
    made = SimpleNamespace()
    monkeypatch.setattr(compare, "experiment_for", lambda directory, changes=(): made)
    monkeypatch.setattr(compare, "training_flops", flops)


def flops(experiment: Experiment, step: int) -> float:
    return 1e12 * step


def run(*words: str) -> None:
    compare.FLAGS.unparse_flags()
    for name in compare.FLAGS:
        compare.FLAGS[name].unparse()
    compare.FLAGS(["sora compare", *words])
    compare.main(["sora compare"])


def test_the_panel_is_labelled_by_compute_and_its_differences_are_paired(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    checkpoints = [f"--checkpoint={tmp_path}/run_a@{step}" for step in (1, 4, 32)]
    run(*checkpoints, f"--output={tmp_path / 'out'}")
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert page.count("<video") == 2
    assert page.index(">1x<") < page.index(">4x<") < page.index(">32x<") < page.index(">true<")
    assert "a prompt 1" in page
    assert "run_a, step 32" in page
    row = capsys.readouterr().out.split("text_to_video/colour_accuracy")[1]
    found = [float(number) for number in re.findall(r"\((\+[\d.]+)\*", row)]
    assert found == pytest.approx([0.03, 0.31], abs=0.002)


def test_the_newest_checkpoint_is_meant_and_labels_may_be_given(tmp_path: Path) -> None:
    both = [f"--checkpoint={tmp_path}/run_a", f"--checkpoint={tmp_path}/run_b"]
    run(*both, "--label=ours", "--label=theirs", f"--output={tmp_path / 'out'}")
    page = (tmp_path / "out" / "comparison.html").read_text()
    assert ">ours<" in page
    assert "run_b, step 2" in page
    run(*both, f"--output={tmp_path / 'out'}")
    assert ">1x (2)<" in (tmp_path / "out" / "comparison.html").read_text()


def test_what_cannot_be_compared_is_said_and_no_page_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--checkpoint twice or more"):
        run(f"--checkpoint={tmp_path}/run_a", f"--output={tmp_path}")
    both = [f"--checkpoint={tmp_path}/run_a", f"--checkpoint={tmp_path}/other"]
    with pytest.raises(UserError, match="2 checkpoints need as many labels"):
        run(*both, "--label=a", f"--output={tmp_path}")
    with pytest.raises(UserError, match="1x .* were asked different questions by suite text_to"):
        run(*both, f"--output={tmp_path / 'out'}")
    assert not (tmp_path / "out" / "comparison.html").exists()
