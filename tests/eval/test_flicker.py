"""Flicker against closed forms: of errors that stand still, alternate, or are drawn anew."""

import math

import numpy as np
import pytest

from sora_jax.eval.flicker import flicker, motion


def test_an_error_that_stands_still_does_not_flicker() -> None:
    clip = np.random.default_rng(0).integers(0, 200, (5, 8, 8, 3), np.uint8)
    still = np.random.default_rng(1).integers(0, 55, (8, 8, 3), np.uint8)
    assert flicker(clip + still, clip) == 0
    assert flicker(clip, clip) == 0


def test_an_error_that_alternates_flickers_by_its_span() -> None:
    clip = np.full((7, 4, 4, 3), 100, np.uint8)
    made = clip.copy()
    made[::2] += 9
    made[1::2] -= 4
    assert flicker(made, clip) == 13


def test_errors_drawn_anew_flicker_by_their_known_difference() -> None:
    """The difference of two Gaussians of deviation s is one of sqrt(2) s, of mean size
    sqrt(2/pi) times that."""
    noise = np.random.default_rng(0).normal(0, 12, (33, 32, 32, 3))
    clip = np.full(noise.shape, 128, np.uint8)
    made = np.round(clip + noise).astype(np.uint8)
    assert flicker(made, clip) == pytest.approx(12 * 2 / math.sqrt(math.pi), rel=5e-3)


def test_frozen_clips_flicker_by_the_motion_they_lack() -> None:
    ramp = np.arange(0, 60, 6, np.uint8).reshape(10, 1, 1, 1)
    clip = np.broadcast_to(ramp, (10, 4, 4, 3))
    assert motion(clip) == 6
    frozen = np.broadcast_to(clip[:1], clip.shape)
    assert flicker(frozen, clip) == motion(clip)
    assert motion(frozen) == 0
