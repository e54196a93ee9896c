"""A stack of equal blocks: a vmapped constructor and one scan. Only this file knows of scan."""

from collections.abc import Callable
from typing import Any, Literal

import jax
from flax import nnx
from jax.ad_checkpoint import checkpoint_name

from sora_jax.nn.context import FROM_CAPTION, KEPT

Remat = Literal["none", "matmuls", "attention", "offload", "full"]
"""What the backward pass computes again: nothing; all but matmuls by weights and what attention
gives; all but attention among tokens; the same, with what is kept waiting in the host's memory; all
that is in a block."""
INPUT = "block"  # what the input of a block is called, for a policy to keep


def stack(make_block: Callable[[nnx.Rngs], Any], depth: int, rngs: nnx.Rngs) -> Any:
    """`depth` blocks as one block whose every parameter has a leading `layers` axis."""
    return jax.vmap(lambda key: make_block(nnx.Rngs(key)))(jax.random.split(rngs.params(), depth))


def apply_stack(blocks: Any, x: jax.Array, *context: Any, remat: Remat, unroll: bool) -> jax.Array:
    """x through every block in turn; `context` is what all of them see.

    `unroll` writes the loop out: the same numbers, a longer compilation, and on CPU faster steps.
    """

    def apply(x: jax.Array, block: Any) -> tuple[jax.Array, None]:
        return block(checkpoint_name(x, INPUT), *context), None

    if remat == "full":
        apply = jax.checkpoint(apply)
    elif remat == "attention":
        policy = jax.checkpoint_policies.save_only_these_names(KEPT)
        apply = jax.checkpoint(apply, policy=policy)
    elif remat == "matmuls":
        policies = jax.checkpoint_policies
        policy = policies.save_from_both_policies(
            policies.dots_with_no_batch_dims_saveable,  # by weights
            policies.save_only_these_names(KEPT, FROM_CAPTION),
        )
        apply = jax.checkpoint(apply, policy=policy)
    elif remat == "offload":
        policy = jax.checkpoint_policies.save_and_offload_only_these_names(
            names_which_can_be_saved=[],
            names_which_can_be_offloaded=[INPUT, KEPT],
            offload_src="device",
            offload_dst="pinned_host",
        )
        apply = jax.checkpoint(apply, policy=policy)
    return jax.lax.scan(apply, x, blocks, unroll=unroll)[0]
