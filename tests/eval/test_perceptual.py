"""LPIPS of clips is the mean over frames, whatever batches they come in."""

import jax
import numpy as np
import pytest

from sora_jax.eval import perceptual
from sora_jax.eval.perceptual import clip_distances, column_distances, measures
from sora_jax.models.lpips import LPIPS
from sora_jax.models.vae import to_unit
from tests import tiny_lpips


def clip(frames: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (frames, 20, 24, 3), np.uint8)


@pytest.mark.parametrize("at_once", [1, 3 * 20 * 24, 10**6])
def test_it_is_the_mean_over_frames(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = LPIPS(tiny_lpips.arrays(), "blurred")
    videos = [clip(frames, frames) for frames in (1, 4, 2)]
    truths = [clip(frames, 9 + frames) for frames in (1, 4, 2)]
    distance = jax.jit(lambda x, y: model(to_unit(x), to_unit(y)))
    expected = [distance(*pair).mean() for pair in zip(videos, truths, strict=True)]
    monkeypatch.setattr(perceptual, "PIXELS_AT_ONCE", at_once)
    found = clip_distances(model, videos, truths)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.ptp(found) > 1e-3
    columns = column_distances(model, [truths, videos], truths)
    np.testing.assert_allclose(columns, [np.zeros(3), expected], rtol=1e-5, atol=1e-7)


def test_frames_that_are_too_small_are_told() -> None:
    model = LPIPS(tiny_lpips.arrays(), "blurred")
    assert measures(model, clip(1, 0))
    assert not measures(model, clip(1, 0)[:, :17])
