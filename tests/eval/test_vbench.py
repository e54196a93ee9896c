"""VBench's dimensions: by plain loops where they need no network, and by known motion."""

import numpy as np
import pytest

from sora_jax.errors import ConfigError
from sora_jax.eval import vbench
from sora_jax.eval.world_state import frozen

RNG = np.random.default_rng(0)


def texture(side: int = 96) -> np.ndarray:
    """A smooth picture [side, side, 3] with structure everywhere."""
    coarse = RNG.uniform(0, 255, (side // 4, side // 4, 3))
    ends = np.linspace(0, side // 4 - 1, side)
    low = np.floor(ends).astype(int)
    high, part = np.minimum(low + 1, side // 4 - 1), (ends - low)[:, None, None]
    rows = coarse[low] * (1 - part) + coarse[high] * part
    part = (ends - low)[None, :, None]
    return rows[:, low] * (1 - part) + rows[:, high] * part


def sliding(pixels: int, frames: int = 9, side: int = 64) -> np.ndarray:
    """A window that slides over a picture, so many pixels a frame."""
    picture = texture(side + pixels * frames + 4)
    views = [picture[:side, k * pixels : k * pixels + side] for k in range(frames)]
    return np.stack(views).round().astype(np.uint8)


def test_flickering_is_the_mean_change_of_successive_frames() -> None:
    video = np.zeros((3, 8, 8, 3), np.uint8)
    video[1] = 51
    assert vbench.temporal_flickering(video) == pytest.approx(1 - 51 / 255)
    assert vbench.temporal_flickering(frozen(video)) == 1


def test_consistency_is_that_of_a_plain_loop() -> None:
    features = RNG.normal(size=(6, 20))
    total = 0.0
    for frame in range(1, 6):
        for other in (frame - 1, 0):
            norms = np.linalg.norm(features[frame]) * np.linalg.norm(features[other])
            total += max(0.0, features[frame] @ features[other] / norms) / 2
    assert vbench.consistency(features) == pytest.approx(total / 5)
    assert vbench.consistency(np.ones((4, 3))) == pytest.approx(1)


@pytest.mark.parametrize("pixels", [1, 2, 4])
def test_flow_finds_a_known_shift(pixels: int) -> None:
    video = sliding(pixels)
    found = vbench.flow(video[0], video[1])[8:-8, 8:-8]
    assert np.median(found[..., 0]) == pytest.approx(-pixels, abs=0.1)
    assert np.median(found[..., 1]) == pytest.approx(0, abs=0.1)


def test_the_frame_between_two_is_the_one_that_was() -> None:
    video = sliding(2)
    inside = (slice(8, -8), slice(8, -8))
    made = vbench.between(video[0], video[2])[inside].astype(float)
    blended = (video[0].astype(float) + video[2])[inside] / 2
    truth = video[1][inside]
    assert np.abs(made - truth).mean() < 0.25 * np.abs(blended - truth).mean()


def test_smoothness_falls_where_frames_are_out_of_order() -> None:
    video = sliding(2)
    assert vbench.motion_smoothness(frozen(video)) == 1
    smooth = vbench.motion_smoothness(video)
    assert smooth > 0.97
    assert vbench.motion_smoothness(video[[0, 5, 1, 6, 2, 7, 3, 8, 4]]) < smooth - 0.02


def test_what_moves_far_enough_often_enough_is_dynamic() -> None:
    """At 8 frames a second motion is 6 pixels of 256: 1.5 of 64."""
    assert vbench.is_dynamic(sliding(2), 8.0)
    assert not vbench.is_dynamic(sliding(1), 8.0)
    assert vbench.is_dynamic(sliding(1, frames=17), 16.0)  # every second frame is looked at
    assert not vbench.is_dynamic(frozen(sliding(4)), 8.0)
    moves_twice = np.concatenate([frozen(sliding(4)), sliding(4, frames=2)])
    assert not vbench.is_dynamic(moves_twice, 8.0)  # 2 of 11 frames, and 3 are needed


def test_a_frozen_frame_has_the_quality_that_it_has_by_vbench() -> None:
    found = vbench.dimensions(frozen(sliding(2)), 8.0)
    assert found["dynamic_degree_dis"] == 0
    assert found["quality_4_of_7"] == pytest.approx(3 / 3.5)
    moving = vbench.dimensions(sliding(2), 8.0)
    assert moving["dynamic_degree_dis"] == 1
    assert moving["subject_consistency_pixels"] < 1
    with pytest.raises(ConfigError, match="a video of 2 frames has no motion"):
        vbench.dimensions(sliding(2)[:2], 8.0)


def test_results_are_in_the_form_of_vbench() -> None:
    made = vbench.results({"temporal_flickering": [0.5, 1.0]}, ["a-0.mp4", "b-0.mp4"])
    assert made == {
        "temporal_flickering": [
            0.75,
            [
                {"video_path": "a-0.mp4", "video_results": 0.5},
                {"video_path": "b-0.mp4", "video_results": 1.0},
            ],
        ]
    }
