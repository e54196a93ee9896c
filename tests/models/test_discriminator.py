"""The discriminator convolves as XLA does with strides, and scores clips of any size."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sora_jax.config import ConfigError
from sora_jax.models.discriminator import Discriminator, DiscriminatorConfig, PatchConv


@pytest.mark.parametrize("strides", [(1, 1), (1, 2), (2, 2)])
@pytest.mark.parametrize("size", [(5, 8, 12), (4, 7, 9), (1, 6, 6)])
def test_a_convolution_is_one_with_strides(
    strides: tuple[int, int], size: tuple[int, int, int]
) -> None:
    conv = PatchConv(3, 5, strides, rngs=nnx.Rngs(0))
    video = jax.random.normal(jax.random.key(1), (2, *size, 3))

    def by_xla(video: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            video,
            kernel,
            window_strides=(strides[0], strides[1], strides[1]),
            padding=((1, 1), (2, 2), (2, 2)),
            dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        )

    expected, pull = jax.vjp(by_xla, video, conv.kernel[...])
    found, own_pull = jax.vjp(lambda conv, video: conv(video), conv, video)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    of_conv, of_video = own_pull(jnp.cos(found))
    for one, other in zip((of_video, of_conv.kernel[...]), pull(jnp.cos(found)), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-4)


def test_a_patch_of_one_clip_sees_no_other_clip() -> None:
    model = Discriminator(DiscriminatorConfig(width=4, layers=2), rngs=nnx.Rngs(0))
    video = jax.random.normal(jax.random.key(0), (2, 5, 16, 24, 3))
    scores = model(video)
    assert scores.shape[1:] == (3, 6, 8)
    np.testing.assert_allclose(model(video[1:]), scores[1:], rtol=1e-4, atol=1e-5)


def test_sizes_that_make_no_sense_are_refused() -> None:
    with pytest.raises(ConfigError, match="width=0 and layers=3 must be positive"):
        DiscriminatorConfig(width=0)
