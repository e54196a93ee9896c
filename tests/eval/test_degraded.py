"""Faults put into true clips are the ones they are called."""

import numpy as np
from scipy.ndimage import gaussian_filter

from sora_jax.eval.degraded import Degraded, shuffled, with_grain


def test_grain_is_a_slight_blur_and_noise() -> None:
    rng = np.random.default_rng(0)
    video = rng.integers(60, 200, (6, 24, 32, 3), np.uint8)
    found = with_grain(video, 3).astype(np.float64)
    # A window of five pixels, as with_grain has it.
    blurred = gaussian_filter(video.astype(np.float64), (0, 0.6, 0.6, 0), mode="nearest", radius=2)
    noise = found - blurred
    assert abs(noise.mean()) < 0.3
    assert abs(noise.std() - 0.03 * 255) < 0.2
    assert abs(np.corrcoef(noise[:, :-1].ravel(), noise[:, 1:].ravel())[0, 1]) < 0.03
    np.testing.assert_array_equal(with_grain(video, 3), found)
    assert np.any(with_grain(video, 4) != found)


def test_shuffled_frames_are_the_same_frames() -> None:
    video = np.random.default_rng(0).integers(0, 256, (16, 4, 4, 3), np.uint8)
    found = shuffled(video, 1)
    assert np.any(found != video)
    assert sorted(frame.tobytes() for frame in found) == sorted(frame.tobytes() for frame in video)


def test_clips_are_made_worse_as_they_are_read() -> None:
    clips = [np.full((2, 3, 3, 3), index, np.uint8) for index in range(5)]
    changed = Degraded(clips, [4, 1], lambda clip, seed: clip + np.uint8(10 * seed))
    assert [int(clip[0, 0, 0, 0]) for clip in changed] == [44, 11]
    assert [int(clip[0, 0, 0, 0]) for clip in changed[1:]] == [11]
