"""A stack is its blocks in turn; what the backward pass recomputes changes no number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from sora_jax.nn.layers import MLP, RMSNorm
from sora_jax.nn.stack import Remat, apply_stack, stack

DEPTH = 3


class Residual(nnx.Module):
    """x + shift + MLP(norm(x))."""

    def __init__(self, rngs: nnx.Rngs):
        self.norm, self.mlp = RMSNorm(4), MLP(4, 8, rngs=rngs)

    def __call__(self, x: jax.Array, shift: jax.Array) -> jax.Array:
        return x + shift + self.mlp(self.norm(x))


@pytest.mark.parametrize("unroll", [False, True])
def test_a_stack_is_its_blocks_in_turn(unroll: bool) -> None:
    blocks = stack(Residual, DEPTH, nnx.Rngs(0))
    x, shift = jax.random.normal(jax.random.key(0), (2, 5, 4))
    expected = x
    for layer in range(DEPTH):
        block = jax.tree.map(lambda leaf, layer=layer: leaf[layer], blocks)
        expected = block(expected, shift)
    found = apply_stack(blocks, x, shift, remat="none", unroll=unroll)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_layers_start_apart() -> None:
    kernel = stack(Residual, DEPTH, nnx.Rngs(0)).mlp.up.kernel[...]
    assert kernel.shape == (DEPTH, 4, 8)
    assert jnp.abs(kernel[0] - kernel[1]).min() > 0


@pytest.mark.parametrize("remat", ["attention", "offload", "full"])
def test_recomputing_changes_no_gradient(remat: Remat) -> None:
    blocks = stack(Residual, DEPTH, nnx.Rngs(0))
    x, shift = jax.random.normal(jax.random.key(0), (2, 5, 4))

    def gradient(remat: Remat) -> jax.Array:
        def total(blocks: Residual) -> jax.Array:
            return jnp.sum(apply_stack(blocks, x, shift, remat=remat, unroll=False) ** 2)

        return jax.grad(total)(blocks)

    pairs = zip(*map(jax.tree.leaves, (gradient(remat), gradient("none"))), strict=True)
    for found, expected in pairs:
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
