"""Crop and resize: centred, area-averaging, and told in words."""

import numpy as np
import pytest

from sora_jax.data.transforms import crop_box, fit, fit_changes


@pytest.mark.parametrize(
    ("height", "width", "target", "box"),
    [
        (100, 100, (50, 50), (0, 0, 100, 100)),
        (100, 200, (50, 50), (50, 0, 150, 100)),
        (200, 100, (50, 100), (0, 75, 100, 125)),
    ],
)
def test_the_crop_is_the_largest_centred_box(
    height: int, width: int, target: tuple[int, int], box: tuple[float, ...]
) -> None:
    assert crop_box(height, width, target) == box


def test_a_pixel_is_the_mean_of_the_area_under_it() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    # Pillow averages along x, rounds to 8 bits, averages along y and rounds again.
    rows = np.round(image[:, 4:16].reshape(12, 4, 3, 3).mean(2))
    assert np.array_equal(fit(image, (4, 4)), np.round(rows.reshape(4, 3, 4, 3).mean(1)))


def test_the_right_size_is_left_alone() -> None:
    image = np.random.default_rng(0).integers(0, 256, (12, 20, 3), np.uint8)
    assert np.array_equal(fit(image, (12, 20)), image)
    assert fit_changes(12, 20, (12, 20)) == ()


def test_changes_are_told() -> None:
    assert fit_changes(272, 640, (24, 40)) == ("cropped 272x640 to 272x453", "resized to 24x40")
    assert fit_changes(24, 44, (24, 40)) == ("cropped 24x44 to 24x40",)
