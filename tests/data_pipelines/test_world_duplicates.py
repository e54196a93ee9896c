"""Copies among clips of the procedural world, where every scene is like the others: few shapes on
a dark ground, all moving, so that no single picture is enough and every moment counts."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from data_pipelines import table
from data_pipelines.analyse import analyse
from data_pipelines.judge import judge
from data_pipelines.likeness import ALIKE, Signature, alike, signature
from data_pipelines.shots import VideoPass
from sora_jax.world.scene import WorldConfig
from sora_jax.world.source import WorldSource
from tests.data_pipelines.conftest import cropped, resized, write_video

FPS = 24
WORLD = WorldConfig(min_objects=2, max_objects=4, camera_pan=0.5, free_time=0.2)
CLIPS = WorldSource(WORLD, 60, 144, 192, FPS, range(60))
MARGIN = 0.02  # that all copies and all strangers stay away from the threshold
Copy = Callable[[np.ndarray, np.random.Generator], list[np.ndarray]]


def _trimmed(video: np.ndarray, generator: np.random.Generator) -> list[np.ndarray]:
    """Any frame may be the first, also between two thumbnails of the whole."""
    start = generator.integers(1, len(video) // 3)
    return list(video[start : start + 2 * len(video) // 3])


COPIES: dict[str, tuple[Copy, int]] = {  # and quality, lower is better
    "reencoded": (lambda video, _: list(video), 38),
    "trimmed": (_trimmed, 30),
    "rescaled": (lambda video, _: [resized(image, 0.6) for image in video], 23),
    "cropped": (lambda video, _: [cropped(image) for image in video], 23),
    "mirrored": (lambda video, _: [image[:, ::-1] for image in video], 30),
}


@pytest.mark.slow
def test_every_copy_of_a_scene_is_found_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(8)
    copied = set(generator.permutation(len(CLIPS))[: len(CLIPS) // 3].tolist())
    footage = tmp_path / "footage"
    footage.mkdir()
    original_of = {}
    for number, clip in enumerate(CLIPS):
        write_video(footage / f"{number}.mp4", clip.video, FPS)
        for what, (copy, quality) in COPIES.items() if number in copied else ():
            path = footage / f"{number}-{what}.mp4"
            write_video(path, copy(clip.video, generator), FPS, quality=quality)
            original_of[path.name] = f"{number}.mp4"
    analyse([f"folder:{footage}"], str(tmp_path / "measured"))
    judge(str(tmp_path / "measured"), str(tmp_path / "judged"), rules=())
    rows = list(table.rows(str(tmp_path / "judged")))
    assert len(rows) == len(CLIPS) + len(COPIES) * len(copied)
    names = {row["clip_id"]: row["name"] for row in rows}
    found = {row["name"]: names[row["duplicate_of"]] for row in rows if row["duplicate_of"]}
    assert found == original_of
    likes = {row["name"]: Signature.parse(row["thumbnails"], row["thumbnail_seconds"])
             for row in rows}  # fmt: skip
    monkeypatch.setattr("data_pipelines.likeness.ALIKE", 2.0)  # to the best of all lines
    of_copies = [alike(likes[copy], likes[original]) for copy, original in original_of.items()]
    assert min(of_copies) >= ALIKE + MARGIN
    originals = [likes[f"{number}.mp4"] for number in range(0, len(CLIPS), 3)]
    of_strangers = [
        alike(one, other) for at, one in enumerate(originals) for other in originals[:at]
    ]
    assert max(of_strangers) <= ALIKE - MARGIN


def _signature(path: Path, frames: list[np.ndarray], fps: int = FPS) -> Signature:
    write_video(path, frames, fps)
    (clip,) = VideoPass(path).clips()
    return signature(clip)


@pytest.fixture(scope="module")
def scenes() -> tuple[np.ndarray, np.ndarray]:
    return CLIPS[0].video, CLIPS[1].video


@pytest.mark.parametrize("start", range(1, 7))
def test_a_copy_that_begins_between_thumbnails_is_a_copy(
    start: int, scenes: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    whole = _signature(tmp_path / "whole.mp4", list(scenes[0]))
    part = _signature(tmp_path / "part.mp4", list(scenes[0][start:-10]))
    assert alike(whole, part) >= ALIKE + MARGIN
    assert alike(part, whole) >= ALIKE + MARGIN


def test_a_copy_of_another_rate_is_a_copy_and_another_scene_is_none(
    scenes: tuple[np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    """At 30 frames a second thumbnails are 0.267 seconds apart, not 0.25."""
    whole = _signature(tmp_path / "whole.mp4", list(scenes[0]))
    at = np.arange(len(scenes[0]) * 30 // FPS) * FPS // 30
    assert alike(whole, _signature(tmp_path / "rate.mp4", list(scenes[0][at]), 30)) >= ALIKE
    assert alike(whole, _signature(tmp_path / "other.mp4", list(scenes[1]))) < ALIKE - MARGIN
