"""Colours between two of the palette are read as what they are: how far a change has come."""

import itertools

import numpy as np
import pytest

from sora_jax.eval.modes.reading import share_of_new
from sora_jax.world.render import render
from sora_jax.world.scene import PALETTE, Colour, Scene, make_body

FRAMES = 9


def clip(colour: Colour) -> np.ndarray:
    body = make_body("circle", colour, "large", (0.4, 0.5), (0.1, 0.0))
    scene = Scene((body,), 0.0, (1.0, 1.0), 3, 0.05, (0.0, 0.0), 0)
    return render(scene, FRAMES, 32, 32, 8.0)


@pytest.mark.parametrize(("old", "new"), list(itertools.permutations(PALETTE, 2)))
def test_a_fade_is_read_as_far_as_it_has_come(old: Colour, new: Colour) -> None:
    share = np.linspace(0.0, 1.0, FRAMES)
    faded = (1 - share[:, None, None, None]) * clip(old) + share[:, None, None, None] * clip(new)
    found = share_of_new(np.round(faded).astype(np.uint8), old, new)
    np.testing.assert_allclose(found, share, atol=0.02)


def test_a_dimmer_body_is_no_other_colour() -> None:
    dim = (clip("white") * 0.8).astype(np.uint8)
    np.testing.assert_allclose(share_of_new(dim, "white", "green"), 0.0, atol=0.02)


def test_nothing_to_be_seen_has_no_colour() -> None:
    video = clip("red")
    video[3], video[5] = 20, 255
    assert np.isnan(share_of_new(video, "red", "blue")).nonzero()[0].tolist() == [3, 5]


def test_a_third_colour_is_none_between_two() -> None:
    video = clip("red")
    video[4:6] = clip("blue")[4:6]
    assert np.isnan(share_of_new(video, "red", "cyan")).nonzero()[0].tolist() == [4, 5]
