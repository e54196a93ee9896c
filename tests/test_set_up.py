"""What conftest.py promises every test: eight devices, and shape annotations that are executed."""

import jax
import jax.numpy as jnp
import jaxtyping
import pytest

from sora_jax.diffusion.conditioning import in_clip


def test_there_are_eight_devices() -> None:
    assert jax.device_count() == 8


def test_a_wrong_shape_is_caught_at_the_call() -> None:
    with pytest.raises(jaxtyping.TypeCheckError, match="segments"):
        in_clip(jnp.zeros(4, jnp.int32), 1)
