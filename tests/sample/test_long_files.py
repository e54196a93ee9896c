"""Clips of any duration as files: what they say, and jobs that were stopped."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sora_jax.data.footage import read_frames
from sora_jax.diffusion.times import TimesConfig
from sora_jax.errors import UserError
from sora_jax.sample.generate import Sampler, SamplingConfig
from sora_jax.sample.long import LongRequest, Windows, frames_of
from sora_jax.sample.long_files import write_long
from sora_jax.sample.metadata import read_metadata
from sora_jax.sample.progress import read_json
from sora_jax.sample.requests import Request
from tests.tiny_models import tiny_sampler

WINDOW = Request("a red circle", frames=17, height=16, width=24, fps=8.0, seed=3)
LONG = LongRequest(WINDOW, frames=40, context=5, history_level=0.05)
MADE_BY = {"checkpoint": {"weights": "0123"}}


class Stopped(Exception):
    """As a kill would."""


@pytest.fixture(scope="module")
def sampler() -> Sampler:
    config = SamplingConfig(steps=4, rows=1)
    return tiny_sampler(["a red circle"], config, TimesConfig(base_tokens=8))


def write(sampler: Sampler, asked: LongRequest, path: Path) -> list[str]:
    """Writes, and returns what was said."""
    lines: list[str] = []
    write_long(sampler, asked, path, MADE_BY, lines.append)
    return lines


def stop_in(window: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stops a job within a window of this number: its segment is not whole."""
    call = Windows.__call__

    def stopping(self: Windows, number: int, made: Any) -> Any:
        if number == window:
            raise Stopped
        return call(self, number, made)

    monkeypatch.setattr(Windows, "__call__", stopping)


@pytest.mark.parametrize("levels", [1, 3])
@pytest.mark.parametrize("window", [1, 2])
def test_a_job_that_was_stopped_goes_on_to_the_same_bytes(
    sampler: Sampler, tmp_path: Path, levels: int, window: int
) -> None:
    asked = dataclasses.replace(LONG, levels=levels)
    write(sampler, asked, tmp_path / "whole.mp4")
    path = tmp_path / "stopped.mp4"
    with pytest.MonkeyPatch.context() as patch:
        stop_in(window, patch)
        with pytest.raises(Stopped):
            write(sampler, asked, path)
    assert not path.exists()
    assert f"{path}: goes on after window {window}" in write(sampler, asked, path)
    assert path.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert not path.with_name("stopped.mp4.parts").exists()


def test_a_job_that_was_stopped_once_all_was_made_only_joins(
    sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(sampler, LONG, tmp_path / "whole.mp4")

    def failing(*arguments: Any) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr("sora_jax.sample.long_files.join_segments", failing)
        with pytest.raises(Stopped):
            write(sampler, LONG, tmp_path / "out.mp4")
    stop_in(0, monkeypatch)
    write(sampler, LONG, tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def test_a_file_has_the_frames_and_says_how_they_were_made(
    sampler: Sampler, tmp_path: Path
) -> None:
    path, asked = tmp_path / "out.mp4", dataclasses.replace(LONG, story=((3.0, "a red circle"),))
    write(sampler, asked, path)
    frames = np.stack(list(read_frames(path)))
    made = np.concatenate(list(frames_of(sampler, asked)))
    assert frames.shape == (40, 128, 192, 3)  # shown larger
    assert np.abs(frames[:, 4::8, 4::8].astype(int) - made).mean() < 3
    said = read_metadata(path)
    assert said == read_json(path.with_suffix(".json"))
    assert (said["task"], said["frames"], said["seed"]) == ("generate", 40, 3)
    assert said["checkpoint"] == MADE_BY["checkpoint"]
    assert said["story"] == [[3.0, "a red circle"]]
    field = said["field"]
    assert (field["windows"], field["window_frames"], field["context"]) == (3, 17, 5)
    assert (field["levels"], field["history_level"]) == ([0.0, 1.0], 0.05)


def test_a_file_that_is_there_is_left(
    sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.mp4"
    write(sampler, LONG, path)
    stop_in(0, monkeypatch)
    assert write(sampler, LONG, path) == [f"{path}: is there already"]


def test_parts_of_another_clip_are_not_gone_on_from(
    sampler: Sampler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.mp4"
    stop_in(1, monkeypatch)
    with pytest.raises(Stopped):
        write(sampler, LONG, path)
    for changes, named in (({"frames": 60}, "frames, field"), ({"history_level": 0.1}, "field")):
        with pytest.raises(UserError, match=f"parts of a job of another {named}: give another"):
            write(sampler, dataclasses.replace(LONG, **changes), path)


def test_a_file_tells_the_size_that_it_was_cut_out_of(sampler: Sampler, tmp_path: Path) -> None:
    asked = dataclasses.replace(LONG, first=dataclasses.replace(WINDOW, height=13, width=20))
    for request, made_at in ((LONG, None), (asked, [40, 16, 24])):
        path = tmp_path / f"{request.first.height}.mp4"
        write(sampler, request, path)
        said = read_json(path.with_suffix(".json"))
        assert (said["height"], said["width"]) == (request.first.height, request.first.width)
        assert said["made_at"] == made_at
