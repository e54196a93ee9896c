"""Keys and values of given tokens, computed once for all steps of a sampler.

Exact where the transformer was trained with `given_apart`: given tokens then see nothing that
changes from step to step. They cost no attention of their own but that of others to them, nor maps,
after the first step.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sora_jax.nn.attention import Memory
from sora_jax.types import Layout, Text


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Remembering:
    """A block, or a stack of them, whose self-attention sees a memory besides."""

    block: Any
    memory: Memory

    @classmethod
    def of(cls, blocks: Any, memory: Memory) -> "Remembering":
        """A stack, and a memory of all its layers."""
        return cls(blocks, jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), memory))

    def __call__(self, x: Array, *context: Any) -> Array:
        found: Array = self.block(x, *context, memory=self.memory)
        return found


def remember(dit: Any, tokens: Float[Array, "b s c"], layout: Layout, text: Text) -> Memory:
    """What a DiT's blocks see of given tokens, which are alone in their rows."""
    x, _, context = dit.entered(tokens, layout, text)
    modulation, layout, angles, _ = context

    def seen(x: Array, block: Any) -> tuple[Array, tuple[Array, Array]]:
        of_block = block.attention.keys_and_values(block.seen(x, modulation, layout), angles)
        return block(x, *context), of_block

    _, found = jax.lax.scan(seen, x, dit.blocks, unroll=dit.config.unroll)
    keys, values = (jnp.moveaxis(each, 0, 1) for each in found)
    depth = keys.shape[1]
    return Memory(keys, values, jnp.repeat(layout.segments[:, None], depth, 1))
