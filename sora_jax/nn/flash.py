"""Flash attention for TPU: all keys are seen but those of other segments (arXiv:2205.14135).

Beside JAX's splash kernel, which was made for the causal masks of text, these are different. The
backward pass computes the gradients of queries, keys and values in one kernel, five matmuls for
seven, and adds up those of the queries in VMEM, where splash's writes a copy for every block of
keys. Heads are a parallel dimension of the backward grid too, so that both cores of a chip that has
two work. Blocks of queries and keys that share no segment are skipped, and in blocks of one segment
none is compared. Matmuls are laid out so that a matrix unit wider than a head is filled where it
can be, and stand in an order that lets them run beside the softmax (flash_kernels.py).
"""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from sora_jax.nn.block_sizes import (
    LANES,
    PADDINGS,
    Blocks,
    blocks_for,
    generation_at_hand,
    padded_length,
)
from sora_jax.nn.flash_backward import backward
from sora_jax.nn.flash_forward import forward
from sora_jax.nn.flash_kernels import Keys, Queries

NOBODY = -1  # segment of padded keys, which no query has


def flash_attention(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    query_segments: Int[Array, "b q"],
    key_segments: Int[Array, "b s"],
    *,
    blocks: Blocks | None,
    name: str,
) -> Float[Array, "b q h k"]:
    """Attention among tokens of one segment; segment 0 is padding, which no query sees.

    The head width must be a multiple of 128, and the upstream gradient zero at padding. `blocks` of
    None are the table's. Output and log-sum carry `name`: a policy that keeps them runs the forward
    kernel once.
    """
    blocks = blocks or blocks_here(query, key)
    arrays = _arranged(query, key, value, query_segments, key_segments)
    return _heads_back(_flash(*arrays, blocks, name), query)


def blocks_here(query: Float[Array, "b q h k"], key: Float[Array, "b s h k"]) -> Blocks:
    """The table's, for the generation at hand."""
    return blocks_for(query.shape[1], key.shape[1], generation_at_hand())


def flash_forward(
    query: Array,
    key: Array,
    value: Array,
    query_segments: Array,
    key_segments: Array,
    *,
    blocks: Blocks | None,
) -> tuple[Float[Array, "b q h k"], Float[Array, "b h q"]]:
    """Over a part of the keys: output, and the natural log of the softmax's sum."""
    arrays = _arranged(query, key, value, query_segments, key_segments)
    out, total = forward(*arrays, blocks or blocks_here(query, key))
    total = total.reshape(query.shape[0], query.shape[2], -1)[..., : query.shape[1]]
    return _heads_back(out, query), total * math.log(2)


def flash_backward(
    query: Array,
    key: Array,
    value: Array,
    query_segments: Array,
    key_segments: Array,
    total: Float[Array, "b h q"],
    inner: Float[Array, "b h q"],
    upstream: Float[Array, "b q h k"],
    *,
    blocks: Blocks | None,
) -> tuple[Array, Array, Array]:
    """Over a part of the keys, with `total` over all of them and `inner` the sum over head width of
    output x upstream: gradients of query, key and value."""
    arrays = _arranged(query, key, value, query_segments, key_segments)
    upstream = _heads_first(padded(upstream).astype(query.dtype))

    def scalars(x: Float[Array, "b h q"]) -> Float[Array, "g n"]:
        return padded(x.reshape(-1, x.shape[-1]))

    totals = scalars(total) / math.log(2)
    blocks = blocks or blocks_here(query, key)
    d_query, d_key, d_value = backward(*arrays, upstream, totals, scalars(inner), blocks)
    d_query = _heads_back(d_query, query) * _scale(query)
    return d_query, _heads_back(d_key, key), _heads_back(d_value, value)


def _scale(query: Array) -> float:
    """Of the queries: scores are in units of log 2."""
    return math.log2(math.e) / math.sqrt(query.shape[-1])


def _arranged(
    query: Array, key: Array, value: Array, query_segments: Array, key_segments: Array
) -> tuple[Array, Array, Array, Array, Array]:
    """What the kernels take: queries scaled, heads first, tokens padded, padded keys nobody's."""
    scaled = (query.astype(jnp.float32) * _scale(query)).astype(query.dtype)
    key_segments = jnp.where(key_segments == 0, NOBODY, key_segments)
    return (
        _heads_first(padded(scaled)),
        _heads_first(padded(key)),
        _heads_first(padded(value)),
        _without_gaps(padded(query_segments)),
        padded(key_segments, NOBODY),
    )


def _without_gaps(segments: Int[Array, "b n"]) -> Int[Array, "b n"]:
    """Padding takes part where some of a few tokens are no padding: so blocks of queries in which a
    clip ends are of one segment, and fast. What comes out there means nothing anyway."""
    few = next(size for size in (*PADDINGS, LANES) if segments.shape[1] % size == 0)
    parts = rearrange(segments, "b (p n) -> b p n", n=few)
    filled = jnp.where(parts == 0, jnp.max(parts, -1, keepdims=True), parts)
    return filled.reshape(segments.shape)


def _heads_first(x: Float[Array, "b n h k"]) -> Float[Array, "g n k"]:
    b, n, h, k = x.shape
    return jnp.swapaxes(x, 1, 2).reshape(b * h, n, k)


def _heads_back(x: Float[Array, "g m k"], like: Float[Array, "b n h k"]) -> Float[Array, "b n h k"]:
    """Undoes _heads_first and the padding behind it."""
    b, n, h, k = like.shape
    return jnp.swapaxes(x.reshape(b, h, -1, k), 1, 2)[:, :n]


def padded(x: Array, filling: int = 0) -> Array:
    """x filled up behind its tokens, axis 1, to the length that kernels compute."""
    missing = padded_length(x.shape[1]) - x.shape[1]
    widths = ((0, 0), (0, missing), *((0, 0),) * (x.ndim - 2))
    return jnp.pad(x, widths, constant_values=filling) if missing else x


@functools.partial(jax.custom_vjp, nondiff_argnums=(5, 6))
def _flash(
    query: Queries,
    key: Keys,
    value: Keys,
    query_segments: Array,
    key_segments: Array,
    blocks: Blocks,
    name: str,
) -> Queries:
    return forward(query, key, value, query_segments, key_segments, blocks)[0]


def _vjp_forward(
    query: Queries,
    key: Keys,
    value: Keys,
    query_segments: Array,
    key_segments: Array,
    blocks: Blocks,
    name: str,
) -> tuple[Queries, Any]:
    out, total = forward(query, key, value, query_segments, key_segments, blocks)
    out, total = checkpoint_name(out, name), checkpoint_name(total, name)
    return out, (query, key, value, query_segments, key_segments, out, total)


def _vjp_backward(blocks: Blocks, name: str, residuals: Any, upstream: Queries) -> tuple[Any, ...]:
    query, key, value, query_segments, key_segments, out, total = residuals
    inner = jnp.sum(out.astype(jnp.float32) * upstream.astype(jnp.float32), -1)
    gradients = backward(
        query, key, value, query_segments, key_segments, upstream, total, inner, blocks
    )
    return (*gradients, None, None)


_flash.defvjp(_vjp_forward, _vjp_backward)
