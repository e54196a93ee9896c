"""Features of clips: the same whatever the batches, devices and processes, and pixels as meant."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from sora_jax.data.schema import DataError
from sora_jax.eval import features as of_clips
from sora_jax.eval.backbone import squashed
from sora_jax.eval.features import clip_features
from tests.processes import in_processes
from tests.tiny_backbone import TINY, by_hand, random_clips


def half_pixel(picture: np.ndarray, side: int) -> np.ndarray:
    """[h, w, 3] to [side, side, 3]: each pixel from the four whose centres are around its own."""
    places = []
    for size in picture.shape[:2]:
        place = np.clip((np.arange(side) + 0.5) * size / side - 0.5, 0, size - 1)
        below = np.minimum(place.astype(int), max(size - 2, 0))
        places.append((below, np.minimum(below + 1, size - 1), place - below))
    (top, bottom, down), (left, right, along) = places
    down, along = down[:, None, None], along[None, :, None]
    rows = picture[top] * (1 - down) + picture[bottom] * down
    return rows[:, left] * (1 - along) + rows[:, right] * along


@pytest.mark.parametrize("size", [(64, 64), (300, 180), (224, 224), (48, 500)])
def test_frames_are_squashed_between_pixel_centres_without_low_pass(size: tuple[int, int]) -> None:
    clips = np.random.default_rng(0).integers(0, 256, (2, 2, *size, 3), np.uint8)
    expected = [[half_pixel(frame.astype(np.float64), 224) for frame in clip] for clip in clips]
    np.testing.assert_allclose(squashed(jnp.asarray(clips), 224), expected, atol=1e-3)


@pytest.mark.parametrize("count", [1, 7, 45])
def test_features_are_those_of_each_clip_in_order(count: int) -> None:
    clips = random_clips(count)
    found = clip_features(TINY, clips)
    expected = by_hand(clips)
    np.testing.assert_allclose(found.features, expected, rtol=1e-5)
    assert found.moments.count == count
    np.testing.assert_allclose(found.moments.mean, expected.mean(0), rtol=1e-5)
    if count > 1:
        covariance = np.cov(expected.T)
        error = abs(found.moments.covariance - covariance).max()
        assert error < 1e-5 * abs(covariance).max()
    assert found.frames == 4


def test_batches_are_filled_up_and_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    batches, reads = [], []
    forward = of_clips._forward

    def watched(features: Any, model: Any, videos: Array, real: Array) -> Any:
        batches.append((len(videos), int(real.sum()), len(videos.sharding.device_set)))
        return forward(features, model, videos, real)

    class Watched(list):
        def __getitem__(self, index: Any) -> Any:
            reads.append(index)
            return super().__getitem__(index)

    monkeypatch.setattr(of_clips, "_forward", watched)
    clip_features(TINY, Watched([random_clips(1)[0]] * 45))
    # Two even batches over eight devices, and not one of 32 and one of 13.
    assert batches == [(24, 24, 8), (24, 21, 8)]
    assert reads == list(range(45))


def test_pixels_of_any_other_kind_are_refused() -> None:
    clips = random_clips(3)
    unit = [*clips[:2], clips[2].astype(np.float32) / 255]
    with pytest.raises(DataError, match=r"clip 2 is float32 \[4, 10, 6, 3\]: .* uint8"):
        clip_features(TINY, unit)
    with pytest.raises(DataError, match="clip 1 has 1 frames, and tiny describes clips of 2"):
        clip_features(TINY, [clips[0], clips[1][:1]])
    with pytest.raises(DataError, match="clips of 3 and of 4 frames have no distribution"):
        clip_features(TINY, [clips[0], clips[1][:3]])
    with pytest.raises(DataError, match="no clips to describe"):
        clip_features(TINY, [])


def child(port: str, number: str, path: str) -> None:
    """One of two processes, of which the second has no clip of the second set."""
    jax.distributed.initialize(f"localhost:{port}", 2, int(number))
    for count in (45, 1):
        clips = random_clips(count)
        found = clip_features(TINY, clips)
        np.testing.assert_allclose(found.features, by_hand(clips), rtol=1e-5)
        np.savez(f"{path}/{number}-{count}.npz", **dataclasses.asdict(found.moments))


def test_two_processes_have_the_features_and_moments_of_one(tmp_path: Path) -> None:
    in_processes(2, "tests.eval.test_features", str(tmp_path))
    for count in (45, 1):
        alone = dataclasses.asdict(clip_features(TINY, random_clips(count)).moments)
        for number in range(2):
            with np.load(tmp_path / f"{number}-{count}.npz") as found:
                for name, value in alone.items():
                    np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-3)
