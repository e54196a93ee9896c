"""What conftest.py promises every test: eight devices, and shape annotations that are executed."""

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from sora_jax.diffusion.conditioning import noise_field


def test_there_are_eight_devices() -> None:
    assert jax.device_count() == 8


def test_a_wrong_shape_is_caught_at_the_call() -> None:
    frames, segments = jnp.zeros((2, 3), jnp.int32), jnp.zeros((2, 4), jnp.int32)
    given_frames, level = jnp.zeros((2, 1), jnp.int32), jnp.zeros((2, 1))
    with pytest.raises(jaxtyping.TypeCheckError, match="segments"):
        noise_field(frames, segments, given_frames, level, level)
