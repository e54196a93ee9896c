"""Token ids -> text embeddings: a small T5-style encoder, trained jointly with the transformer.

The transformer takes `Text`, so embeddings that a large encoder made beforehand go in by the same
door: `TextConfig(source="given")` leaves this module out, and batches bring `Text`.
"""

import dataclasses
from collections.abc import Callable
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from sora_jax.config import ConfigError
from sora_jax.nn.flash_kernels import MASKED
from sora_jax.nn.layers import Linear, RMSNorm
from sora_jax.nn.stack import apply_stack, stack
from sora_jax.sharding.rules import caption_axis, constrain
from sora_jax.types import Text

NUM_BUCKETS, MAX_DISTANCE = 32, 128  # of relative positions, as T5 has them
BEHIND = 8.0  # how much farther a fresh head finds what lies on the side it does not look to


@dataclasses.dataclass(frozen=True)
class TextConfig:
    """Where embeddings of captions come from, and how wide they are.

    "encoder": from token ids, by an encoder of so many blocks and heads that is trained along.
    "given": with the batch, made beforehand; then there is no vocabulary and no encoder.

    `recompute`: the backward pass computes the inside of blocks again; batches of many short clips
    hold as many captions.
    """

    depth: int = 2
    width: int = 128
    heads: int = 4
    source: Literal["encoder", "given"] = "encoder"
    compute: Literal["float32", "bfloat16"] = "float32"
    recompute: bool = False

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise ConfigError(f"text.width={self.width} does not divide by heads={self.heads}")


def relative_buckets(length: int) -> Int[Array, "l l"]:
    """T5's two-sided buckets of (key - query) distance (arXiv:1910.10683, 2.1): exact when near,
    logarithmic to MAX_DISTANCE when far.

    Logarithms are the host's: one that is a bit too small would move 16, 32 and 64, where buckets
    begin, into those before, and weights that were trained elsewhere know only where they begin.
    """
    half, exact = NUM_BUCKETS // 2, NUM_BUCKETS // 4
    size = np.arange(length)
    ratio = np.log(np.maximum(size, 1) / exact) / np.log(MAX_DISTANCE / exact)
    far = np.minimum(exact + (ratio * (half - exact)).astype(int), half - 1)
    of_size = jnp.asarray(np.where(size < exact, size, far))
    distance = jnp.arange(length)[None, :] - jnp.arange(length)[:, None]
    return half * (distance > 0) + of_size[jnp.abs(distance)]


def nearness(heads: int) -> Float[Array, "buckets h"]:
    """What each head's biases start from: -slope x distance (arXiv:2108.12409), slopes 1, 1/2, 1/4
    and on, even heads looking ahead and odd ones back.

    So the words of a phrase find each other from the first step. When heads start by looking
    everywhere, which shape belongs to which colour is learned much later.
    """
    half, exact = NUM_BUCKETS // 2, NUM_BUCKETS // 4
    size = jnp.minimum(jnp.arange(half), 1.5 * exact)  # coarse buckets are far enough as one
    ahead = jnp.concatenate([BEHIND * size, size])  # relative_buckets: keys before, then after
    back = jnp.concatenate([size, BEHIND * size])
    head = jnp.arange(heads)
    distance = jnp.where(head % 2 == 0, ahead[:, None], back[:, None])
    return -distance * 0.5 ** (head // 2)


class TextBlock(nnx.Module):
    """Pre-norm self-attention with relative position bias, then a gated GELU MLP; no biases."""

    def __init__(self, config: TextConfig, rngs: nnx.Rngs):
        width = config.width
        self.heads = config.heads
        self.attention_norm, self.mlp_norm = RMSNorm(width), RMSNorm(width)
        self.qkv = Linear(width, 3 * width, ("embed", "heads"), rngs=rngs, use_bias=False)
        self.out = Linear(width, width, ("heads", "embed"), rngs=rngs, use_bias=False)
        self.gate = Linear(width, 2 * width, ("embed", "mlp"), rngs=rngs, use_bias=False)
        self.up = Linear(width, 2 * width, ("embed", "mlp"), rngs=rngs, use_bias=False)
        self.down = Linear(2 * width, width, ("mlp", "embed"), rngs=rngs, use_bias=False)

    def __call__(
        self, x: Float[Array, "b l d"], bias: Float[Array, "b h l l"]
    ) -> Float[Array, "b l d"]:
        q, k, v = rearrange(
            self.qkv(self.attention_norm(x)), "b l (s h k) -> s b l h k", s=3, h=self.heads
        )
        logits = jnp.einsum("bqhk,bshk->bhqs", q, k) / jnp.sqrt(q.shape[-1])
        weights = jax.nn.softmax(logits.astype(jnp.float32) + bias, -1).astype(x.dtype)
        x = x + self.out(
            rearrange(jnp.einsum("bhqs,bshk->bqhk", weights, v), "b l h k -> b l (h k)")
        )
        y = self.mlp_norm(x)
        return x + self.down(jax.nn.gelu(self.gate(y)) * self.up(y))


class TextEncoder(nnx.Module):
    """T5-style encoder (arXiv:1910.10683) without dropout; id 0 is padding."""

    def __init__(self, config: TextConfig, vocabulary: int, *, rngs: nnx.Rngs):
        self.config = config
        table = jax.random.normal(rngs.params(), (vocabulary, config.width))
        self.embedding = nnx.Param(table, axes=("vocabulary", "embed"))
        bias = 0.1 * jax.random.normal(rngs.params(), (NUM_BUCKETS, config.heads))
        self.position_bias = nnx.Param(bias + nearness(config.heads), axes=(None, "heads"))
        self.blocks = stack(lambda rngs: TextBlock(config, rngs), config.depth, rngs)
        self.norm = RMSNorm(config.width)

    def __call__(self, ids: Int[Array, "b l"]) -> Text:
        """Embeddings of one caption a row, as segment 1.

        Captions are split over all devices that share their rows, where there are enough.
        """
        present = ids != 0
        axis = caption_axis(len(ids))
        bias = self.position_bias[...][relative_buckets(ids.shape[1])]
        bias = jnp.where(present[:, None, None], rearrange(bias, "q s h -> 1 h q s"), MASKED)
        x = constrain(self.embedding[...][ids].astype(self.config.compute), axis, None, None)
        again = self.config.recompute
        x = apply_stack(self.blocks, x, bias, remat="full" if again else "none", unroll=not again)
        x = constrain(self.norm(x), "rows", None, None)
        return Text(embeddings=x, segments=present.astype(jnp.int32))


def encode_rows(
    encode: Callable[[Int[Array, "b l"]], Text], ids: Int[Array, "b l"], clips: int
) -> Text:
    """Embeddings of rows that hold captions of `clips` clips each, one after another: every caption
    is encoded alone, and its segment is the number of its clip."""
    each = encode(rearrange(ids, "b (s l) -> (b s) l", s=clips))
    segments = rearrange(each.segments, "(b s) l -> b s l", s=clips)
    segments = segments * jnp.arange(1, clips + 1)[:, None]
    return Text(
        embeddings=rearrange(each.embeddings, "(b s) l d -> b (s l) d", s=clips),
        segments=rearrange(segments, "b s l -> b (s l)"),
    )


def caption_mean(text: Text, level_segments: Int[Array, "b m"]) -> Float[Array, "b m d"]:
    """Mean embedding of the caption that belongs to each noise level's segment (0 if none)."""
    belongs = level_segments[:, :, None] == text.segments[:, None, :]
    belongs &= text.segments[:, None, :] != 0
    weights = belongs / jnp.maximum(belongs.sum(-1, keepdims=True), 1)
    return jnp.einsum("bml,bld->bmd", weights.astype(text.embeddings.dtype), text.embeddings)
