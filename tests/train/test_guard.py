"""The guard: a loss that jumps is told with its clips, and lifts no later limit."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from sora_jax.train.guard import Guard
from sora_jax.types import Drawn


def guard(directory: Path) -> Guard:
    return Guard("tiny", directory, 3, lambda drawn: [f"clip {each}" for each in drawn.positions])


def step(loss: float, **changes: float) -> dict[str, Any]:
    return {"loss": np.asarray([loss]), "skipped": 0.0, "update_norm": 1.0, **changes}


def lines(directory: Path) -> list[dict[str, Any]]:
    path = directory / "incidents.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_a_loss_far_above_its_buckets_is_told_and_no_other(tmp_path: Path, capsys: Any) -> None:
    losses = np.random.default_rng(0).normal(size=(400, 2)) * [0.1, 1.0] + [1.0, 5.0]
    losses[100, 0], losses[200, 0] = 3.0, 3.0  # below what the other bucket always has
    losses[300, 1] = 50.0
    watching = guard(tmp_path)
    for number, pair in enumerate(losses):
        for bucket, loss in zip(("small", "large"), pair, strict=True):
            positions = range(2 * number, 2 * number + 2)
            watching.look(number, step(loss), [Drawn(bucket, positions)])
    found = [(line["step"], line["what"], line["bucket"]) for line in lines(tmp_path)]
    assert found == [(100, "loss", "small"), (200, "loss", "small"), (300, "loss", "large")]
    assert lines(tmp_path)[0]["clips"] == ["clip 200", "clip 201"]
    assert abs(lines(tmp_path)[1]["mean"] - 1) < 0.1
    assert "tiny: step 300 of bucket large, loss 50, is far above its mean" in (
        capsys.readouterr().out
    )


def test_it_goes_on_after_a_restart_as_if_there_was_none(tmp_path: Path) -> None:
    losses = np.random.default_rng(1).normal(size=100) * 0.1 + 1
    losses[[20, 60, 90]] = 4.0  # too early to tell, and then not
    whole, first = guard(tmp_path / "whole"), guard(tmp_path / "stopped")
    for directory in ("whole", "stopped"):
        (tmp_path / directory).mkdir()
    for number, loss in enumerate(losses, 1):
        whole.look(number, step(loss), [Drawn("small", range(1))])
    for number, loss in enumerate(losses[:70], 1):
        first.look(number, step(loss), [Drawn("small", range(1))])
        if number == 50:
            saved = json.loads(json.dumps(first.state()))
    assert [line["step"] for line in lines(tmp_path / "stopped")] == [61]
    second = guard(tmp_path / "stopped")
    second.restore(saved, 50)
    assert not lines(tmp_path / "stopped")
    for number, loss in enumerate(losses[50:], 51):
        second.look(number, step(loss), [Drawn("small", range(1))])
    assert lines(tmp_path / "stopped") == lines(tmp_path / "whole")
    assert [line["step"] for line in lines(tmp_path / "whole")] == [61, 91]
    assert second.state() == whole.state()
