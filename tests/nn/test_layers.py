"""The gradient rule of matrices: jax's numbers, and no array turned round on the way."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from sora_jax.nn.layers import matmul
from tests.tiny import eight_device_mesh, one_device_mesh


def through(product: object, x: Array, kernel: Array) -> Array:
    return jnp.sum(jnp.sin(product(x, kernel)))  # type: ignore[operator]


@pytest.mark.parametrize("shape", [(16,), (4, 16), (4, 8, 16), (4, 2, 4, 16)], ids=str)
@pytest.mark.parametrize("mesh", [one_device_mesh, eight_device_mesh])
def test_gradients_are_those_of_the_plain_product(shape: tuple[int, ...], mesh: object) -> None:
    x, kernel = (
        jax.random.normal(jax.random.key(seed), size) for seed, size in enumerate((shape, (16, 32)))
    )
    expected = jax.grad(through, (1, 2))(jnp.matmul, x, kernel)
    with jax.set_mesh(mesh()):  # type: ignore[operator]
        found = jax.jit(jax.grad(through, (1, 2)), static_argnums=0)(matmul, x, kernel)
    for ours, plain in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, plain, atol=1e-5)


@pytest.mark.parametrize(("product", "turned"), [(matmul, False), (jnp.matmul, True)])
def test_on_cpu_nothing_is_turned_round(product: object, turned: bool) -> None:
    """XLA needs a transpose for jax's own rule, so that the test would find one."""
    x, kernel = (jax.ShapeDtypeStruct(shape, jnp.float32) for shape in ((1, 64, 96), (96, 32)))
    gradient = jax.jit(jax.grad(through, 2), static_argnums=0)
    text = str(gradient.lower(product, x, kernel).compile().as_text())
    assert (" transpose(" in text) == turned
