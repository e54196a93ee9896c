"""metrics.jsonl: one line a step, whole after any restart."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sora_jax.train.metrics import MetricWriter


def lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def write(directory: Path, start: int, steps: range) -> None:
    writer = MetricWriter(directory, "dit", 100, start)
    for step in steps:
        writer.scalars(step, {"loss": step / 8})
    writer.close()


def test_a_restart_keeps_the_lines_up_to_its_step(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 8))
    write(tmp_path, 5, range(6, 10))
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 10))
    assert [line["loss"] for line in lines(tmp_path)] == [step / 8 for step in range(1, 10)]


def test_a_line_that_a_kill_cut_short_is_dropped(tmp_path: Path) -> None:
    write(tmp_path, 0, range(1, 6))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 6, "lo')
    write(tmp_path, 5, range(6, 8))
    assert [line["step"] for line in lines(tmp_path)] == list(range(1, 8))


def test_progress_is_printed_with_what_is_left_and_parts_are_in_the_file(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    times = {"steps_per_second": 5.0, "tokens_per_second": 1000.4, "seconds/data": 0.01}
    writer = MetricWriter(tmp_path, "vae", 100, 0)
    writer.scalars(20, {"loss": 0.125, "loss/5x16x16": 0.5}, times)
    assert capsys.readouterr().out == "vae 20/100  loss 0.125  1,000 tokens/s  ETA 0:16\n"
    writer.scalars(20, {"fvd": 3.0})  # of an evaluator
    assert lines(tmp_path) == [
        {"step": 20, "loss": 0.125, "loss/5x16x16": 0.5, **times},
        {"step": 20, "fvd": 3.0},
    ]
    assert writer.latest == {"loss": 0.125, "loss/5x16x16": 0.5, "fvd": 3.0}


def test_scalars_and_videos_reach_tensorboard(tmp_path: Path) -> None:
    writer = MetricWriter(tmp_path, "dit", 100, 0)
    writer.scalars(1, {"loss": 1.0})
    writer.video(1, "sample", np.zeros((3, 8, 8, 3), np.uint8), fps=8.0)
    writer.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    content = events.read_bytes()
    assert b"loss" in content
    assert b"sample" in content
    assert b"GIF89a" in content
