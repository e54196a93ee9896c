"""`sora evaluate`: which checkpoints it takes, when, and its sentences."""

from pathlib import Path

import pytest

from sora_jax.checkpoints import CheckpointError
from sora_jax.cli import evaluate
from sora_jax.errors import UserError
from sora_jax.evaluation import Asked


def test_a_run_must_be_named() -> None:
    evaluate.FLAGS(["sora evaluate"])
    with pytest.raises(UserError, match="needs --checkpoint"):
        evaluate.main(["sora evaluate"])


def test_steps_are_chosen_by_a_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(evaluate, "saved_steps", lambda directory: [10, 20, 30])
    assert evaluate.chosen_steps(tmp_path, "latest") == [30]
    assert evaluate.chosen_steps(tmp_path, "all") == [10, 20, 30]
    assert evaluate.chosen_steps(tmp_path, "20") == [20]
    with pytest.raises(UserError, match="--step newest is no step"):
        evaluate.chosen_steps(tmp_path, "newest")
    monkeypatch.setattr(evaluate, "saved_steps", lambda directory: [])
    with pytest.raises(CheckpointError, match="no complete checkpoint in .*: train first"):
        evaluate.chosen_steps(tmp_path, "latest")


def test_a_watch_takes_each_checkpoint_once_until_the_last(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """They come one by one; that of step 20 is removed before it is read."""
    there = iter(([], [10], [10], [20], [30], [30], [30], [40], [40]))
    evaluated = []

    def evaluate_one(asked: Asked, step: int) -> None:
        if step == 20:
            raise CheckpointError("it is not there")
        evaluated.append(step)

    monkeypatch.setattr(evaluate, "saved_steps", lambda directory: next(there))
    monkeypatch.setattr(evaluate, "evaluate_run", evaluate_one)
    monkeypatch.setattr(evaluate, "last_step", lambda directory: 40)
    evaluate.watch(Asked(tmp_path, tmp_path), poll_seconds=0)
    assert evaluated == [10, 30, 40]
    assert "step 20 was removed before it was evaluated" in capsys.readouterr().out
