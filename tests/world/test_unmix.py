"""Blobs read from pixels stand where the truth has them; noise is no blob."""

from collections.abc import Callable

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from sora_jax.world.canvas import blank, draw, pixels
from sora_jax.world.scene import Colour
from sora_jax.world.unmix import COLOURS, amounts, find

FRAMES, RADIUS = 60, 0.08


def moving(colour: Colour, size: int = 64) -> tuple[np.ndarray, np.ndarray]:
    """A disc at random places, and those places."""
    places = np.random.default_rng(len(colour)).uniform(0.15, 0.85, (FRAMES, 2))
    canvas = blank(FRAMES, size)
    draw(canvas, "circle", colour, places, RADIUS)
    return pixels(canvas), places


def softened(video: np.ndarray) -> np.ndarray:
    """A clip as an autoencoder returns it: a little blur and grain."""
    soft = gaussian_filter(video / 255.0, (0, 0.6, 0.6, 0))
    grain = np.random.default_rng(0).normal(0, 0.03, video.shape)
    return np.asarray(np.clip(soft + grain, 0, 1) * 255 + 0.5, np.uint8)


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize(("change", "error"), [(np.asarray, 0.03), (softened, 0.1)])
def test_centroids_are_right_to_a_small_part_of_a_pixel(
    colour: Colour, change: Callable[[np.ndarray], np.ndarray], error: float
) -> None:
    video, places = moving(colour)
    blobs = find(change(video), [colour])
    off = np.linalg.norm(blobs.centroid[:, 0] - places, axis=-1) * 64
    assert np.sqrt((off**2).mean()) < error
    np.testing.assert_allclose(blobs.area[:, 0], np.pi * RADIUS**2, rtol=0.1)
    assert blobs.present(np.pi * RADIUS**2).all()


def test_other_colours_are_not_there() -> None:
    video, _ = moving("red")
    others = [colour for colour in COLOURS if colour != "red"]
    blobs = find(softened(video), others)
    assert blobs.area.max() < 0.1 * np.pi * RADIUS**2
    assert not blobs.present(np.pi * RADIUS**2).any()


def test_noise_has_no_blobs_of_any_colour_or_size() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (16, 64, 64, 3), np.uint8)
    blobs = find(noise)
    assert blobs.compactness.max() < 0.5
    assert not blobs.present(blobs.area.mean(0)).any()


def test_two_blobs_of_a_colour_are_no_blob() -> None:
    canvas = blank(1, 64)
    draw(canvas, "circle", "blue", np.array([[0.2, 0.2]]), RADIUS)
    draw(canvas, "circle", "blue", np.array([[0.8, 0.7]]), RADIUS)
    assert not find(pixels(canvas), ["blue"]).present(2 * np.pi * RADIUS**2).any()


def test_a_stray_speck_neither_hides_nor_moves_a_blob() -> None:
    video, places = moving("green")
    speckled = video.copy()
    speckled[:, 2:4, 2:4] = video.reshape(-1, 3).max(0) * np.array([0, 1, 0], np.uint8)
    blobs = find(speckled, ["green"])
    assert blobs.present(np.pi * RADIUS**2).all()
    assert np.abs(blobs.centroid[:, 0] - places).max() * 64 < 0.1


def test_amounts_are_those_of_the_colour_alone() -> None:
    canvas = blank(1, 64)
    draw(canvas, "circle", "red", np.array([[0.25, 0.5]]), 0.1)
    draw(canvas, "circle", "cyan", np.array([[0.75, 0.5]]), 0.15)
    amount = amounts(pixels(canvas), "cyan")
    assert amount.sum() / 64**2 == pytest.approx(np.pi * 0.15**2, rel=0.02)
    assert amount[0, :, :32].max() == 0


def test_an_empty_frame_has_no_place() -> None:
    blobs = find(pixels(blank(2, 32)))
    assert np.isnan(blobs.centroid).all()
    assert blobs.area.max() == 0
