"""The basis that folds begin with: orthonormal, lowest frequencies first, best for smooth clips."""

import numpy as np
import pytest
import scipy.fft

from sora_jax.nn.cosines import lowest_frequencies


@pytest.mark.parametrize(
    ("inputs", "outputs", "fold"),
    [(3, 48, (1, 4)), (48, 144, (2, 2)), (3, 7, (2, 4)), (5, 5, (1, 1))],
)
def test_columns_are_orthonormal(inputs: int, outputs: int, fold: tuple[int, int]) -> None:
    basis = lowest_frequencies(inputs, outputs, fold)
    assert basis.shape == (fold[0] * fold[1] ** 2 * inputs, outputs)
    np.testing.assert_allclose(basis.T @ basis, np.eye(outputs), atol=1e-6)


def test_more_outputs_than_frequencies_are_zero() -> None:
    basis = lowest_frequencies(3, 20, (1, 2))
    np.testing.assert_allclose(basis[:, :12] @ basis[:, :12].T, np.eye(12), atol=1e-6)
    assert not basis[:, 12:].any()


def test_coefficients_of_pixels_are_those_of_scipy() -> None:
    """All of a fold of 2 x 4 x 4 pixels, of which the first is the mean of all numbers."""
    cell = np.random.default_rng(0).normal(size=(2, 4, 4, 3))
    basis = lowest_frequencies(3, 96, (2, 4))
    found = cell.ravel() @ basis
    expected = scipy.fft.dctn(cell, norm="ortho")
    np.testing.assert_allclose(np.sort(found), np.sort(expected.ravel()), atol=1e-5)
    assert found[0] == pytest.approx(cell.sum() / np.sqrt(96), rel=1e-5)


def test_a_sixteenth_of_them_carry_99_percent_of_a_smooth_picture() -> None:
    y, x = np.mgrid[:8, :8] / 8
    colours = [0.5 + 0.4 * x, 0.5 + 0.3 * y, 0.4 + 0.2 * x * y]
    cell = np.stack([np.stack(colours, -1)] * 2).ravel()
    basis = lowest_frequencies(3, 24, (2, 8))  # of 384
    error = cell - basis @ (basis.T @ cell)
    assert np.square(error).sum() < 1e-2 * np.square(cell - cell.mean()).sum()
