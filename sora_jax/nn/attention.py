"""Attention among tokens of one segment: the one function, and the module that projects for it.

Names of the einsum axes: b rows, q query tokens, s key tokens, h heads, k head width.
"""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from sora_jax.nn.layers import Linear, RMSNorm
from sora_jax.nn.positions import rotate
from sora_jax.sharding.rules import constrain

MASKED = -1e30  # finite: a row of padding attends evenly to nothing instead of making NaN


def attend(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    query_segments: Int[Array, "b q"],
    key_segments: Int[Array, "b s"],
) -> Float[Array, "b q h k"]:
    """Softmax attention (arXiv:1706.03762) where a query sees the keys of its own segment only.

    Segment 0 is padding: no query sees it. The softmax is float32 whatever the inputs are.
    """
    logits = jnp.einsum("bqhk,bshk->bhqs", query, key, preferred_element_type=jnp.float32)
    seen = query_segments[:, :, None] == key_segments[:, None, :]
    seen &= key_segments[:, None, :] != 0
    logits = jnp.where(seen[:, None], logits / jnp.sqrt(query.shape[-1]), MASKED)
    weights = jax.nn.softmax(logits, -1).astype(value.dtype)
    return jnp.einsum("bhqs,bshk->bqhk", weights, value)


class Attention(nnx.Module):
    """Multi-head attention with RMS-normalised queries and keys (arXiv:2302.05442, 2.1).

    Self-attention when `source` is the same width and given as x; rotary angles are optional.
    """

    def __init__(self, width: int, source_width: int, heads: int, *, rngs: nnx.Rngs):
        self.heads = heads
        self.query = Linear(width, width, ("embed", "heads"), rngs=rngs, use_bias=False)
        self.key = Linear(source_width, width, ("embed", "heads"), rngs=rngs, use_bias=False)
        self.value = Linear(source_width, width, ("embed", "heads"), rngs=rngs, use_bias=False)
        self.query_norm = RMSNorm(width // heads)
        self.key_norm = RMSNorm(width // heads)
        self.out = Linear(width, width, ("heads", "embed"), rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "b q d"],
        source: Float[Array, "b s e"],
        segments: Int[Array, "b q"],
        source_segments: Int[Array, "b s"],
        angles: Float[Array, "b q a"] | None = None,
    ) -> Float[Array, "b q d"]:
        query, key, value = (
            rearrange(y, "b n (h k) -> b n h k", h=self.heads)
            for y in (self.query(x), self.key(source), self.value(source))
        )
        query, key = self.query_norm(query), self.key_norm(key)
        if angles is not None:
            query, key = rotate(query, angles), rotate(key, angles)
        key = constrain(key, "rows", None, "heads", None)
        value = constrain(value, "rows", None, "heads", None)
        mixed = attend(query, key, value, segments, source_segments)
        mixed = checkpoint_name(mixed, "attention")
        return self.out(rearrange(mixed, "b n h k -> b n (h k)"))
