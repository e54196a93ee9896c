"""Softmax attention in blocks of queries: exact, by plain XLA, and no array of queries x keys.

What the fused kernels do within a GPU or TPU, for a CPU's memory. The backward pass starts from the
log of the softmax's sum (arXiv:2205.14135, algorithm 4).
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from sora_jax.nn.kernels import reference_backward, reference_forward

SCORES = 2**20  # that a block holds: 4 MiB in float32


def attend_blockwise(
    query: Float[Array, "b q h k"],
    key: Float[Array, "b s h k"],
    value: Float[Array, "b s h k"],
    query_segments: Int[Array, "b q"],
    key_segments: Int[Array, "b s"],
    *,
    name: str,
) -> Float[Array, "b q h k"]:
    """Softmax attention as `attend_reference`; output and log-sum carry `name`."""
    return _attend(query, key, value, query_segments, key_segments, name)


@functools.partial(jax.custom_vjp, nondiff_argnums=(5,))
def _attend(
    query: Array, key: Array, value: Array, query_segments: Array, key_segments: Array, name: str
) -> Array:
    return _forward(query, key, value, query_segments, key_segments, name)[0]


def _forward(
    query: Array, key: Array, value: Array, query_segments: Array, key_segments: Array, name: str
) -> tuple[Array, Any]:
    def of_block(block: tuple[Array, Array]) -> tuple[Array, Array]:
        out, total = reference_forward(block[0], key, value, block[1], key_segments)
        return out.astype(query.dtype), jnp.swapaxes(total, 1, 2)

    count = _blocks(query, key)
    blocks = jax.lax.map(of_block, (_cut(query, count), _cut(query_segments, count)))
    out, total = (checkpoint_name(_joined(x), name) for x in blocks)
    return out, (query, key, value, query_segments, key_segments, out, total)


def _backward(name: str, residuals: Any, upstream: Array) -> tuple[Any, ...]:
    query, key, value, query_segments, key_segments, out, total = residuals
    inner = jnp.einsum("bqhk,bqhk->bqh", out.astype(jnp.float32), upstream.astype(jnp.float32))

    def of_block(sums: tuple[Array, Array], block: tuple[Array, ...]) -> tuple[Any, Array]:
        query, segments, total, inner, upstream = block
        total, inner = jnp.swapaxes(total, 1, 2), jnp.swapaxes(inner, 1, 2)
        d_query, d_key, d_value = reference_backward(
            query, key, value, segments, key_segments, total, inner, upstream
        )
        return (sums[0] + d_key, sums[1] + d_value), d_query.astype(query.dtype)

    count = _blocks(query, key)
    blocks = tuple(_cut(x, count) for x in (query, query_segments, total, inner, upstream))
    sums = (jnp.zeros(key.shape, jnp.float32), jnp.zeros(value.shape, jnp.float32))
    (d_key, d_value), d_query = jax.lax.scan(of_block, sums, blocks)
    return _joined(d_query), d_key.astype(key.dtype), d_value.astype(value.dtype), None, None


_attend.defvjp(_forward, _backward)


def _blocks(query: Array, key: Array) -> int:
    """The fewest equal blocks of queries that hold so few scores each."""
    rows, queries, heads, _ = query.shape
    fitting = max(1, SCORES // (rows * heads * key.shape[1]))
    return next(n for n in range(1, queries + 1) if queries % n == 0 and queries // n <= fitting)


def _cut(x: Array, count: int) -> Array:
    """Blocks of tokens, in front."""
    return jnp.moveaxis(x.reshape(x.shape[0], count, -1, *x.shape[2:]), 1, 0)


def _joined(blocks: Array) -> Array:
    x = jnp.moveaxis(blocks, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])
