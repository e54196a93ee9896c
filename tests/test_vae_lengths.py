"""Cutting a clip into shorter ones to compare lengths: the same frames come out of every length."""

import numpy as np
import pytest

from benchmarks.vae_lengths import LENGTHS, pieces, put_together


@pytest.mark.parametrize("length", LENGTHS)
def test_every_frame_but_the_first_comes_once(length: int) -> None:
    video = np.arange(33 * 2 * 2 * 3).reshape(33, 2, 2, 3).astype(np.uint8)
    made = pieces(video, length)
    assert all(len(piece) == length for piece in made)
    np.testing.assert_array_equal(put_together(made), video[1:])


def test_a_frame_keeps_its_neighbours_in_its_latent() -> None:
    """Latents of 2 or 4 frames begin at the same frames in pieces of any length above 1."""
    order = np.arange(33)
    for length in LENGTHS[1:]:
        pairs = [piece[1:].reshape(-1, 4) for piece in pieces(order, length)]
        np.testing.assert_array_equal(np.concatenate(pairs), order[1:].reshape(-1, 4))
