"""Convolutions in other forms have the numbers of XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.nn import convolution
from sora_jax.nn.convolution import convolve_causally, convolve_pictures, convolve_upsampled

RANDOM = np.random.default_rng(0)


def random(*shape: int) -> jax.Array:
    return jnp.asarray(RANDOM.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("device", ["cpu", "another"])
def test_a_sum_over_frames_is_the_convolution(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(convolution, "device_kind", lambda: device)
    x, kernel = random(2, 6, 4, 5, 3), random(3, 3, 3, 3, 7)
    expected = jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1, 1),
        ((2, 0), (1, 1), (1, 1)),
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )
    np.testing.assert_allclose(convolve_causally(x, kernel, None), expected, atol=1e-4)
    for start in (2, 3, 5):
        before = x[:, start - 2 : start]
        found = convolve_causally(x[:, start:], kernel, before)
        np.testing.assert_allclose(found, expected[:, start:], atol=1e-4)
    one = convolve_causally(x[:, :1], kernel, None)
    np.testing.assert_allclose(one, expected[:, :1], atol=1e-4)


def test_four_small_kernels_are_a_large_one_on_doubled_cells() -> None:
    x, kernel = random(2, 3, 4, 5, 3), random(3, 3, 3, 7)
    expected = convolve_pictures(x.repeat(2, 2).repeat(2, 3), kernel)
    np.testing.assert_allclose(convolve_upsampled(x, kernel), expected, atol=1e-4)
