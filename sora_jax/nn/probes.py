"""Attention kernels alone, with abstract arguments: what their schedules are counted on."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sora_jax.nn.block_sizes import Blocks, blocks_for, generation_at_hand
from sora_jax.nn.flash_backward import backward
from sora_jax.nn.flash_forward import forward
from sora_jax.nn.flash_kernels import Ways

Sizes = Mapping[str, Any] | None
Probed = tuple[Callable[..., Any], tuple[jax.ShapeDtypeStruct, ...]]
WHOLE: Ways = ("whole",)


def flash_forward(
    *, rows: int, heads: int, queries: int, keys: int, width: int, blocks: Sizes = None
) -> Probed:
    """The forward kernel on `rows` rows of bfloat16 arrays, each of a single clip. Tokens are
    padded; blocks of None are the table's, for the generation of the mesh."""

    def run(query: Any, key: Any, value: Any, query_of: Any, key_of: Any) -> Any:
        sizes = _blocks(queries, keys, blocks)
        return forward(query, key, value, query_of, key_of, sizes, WHOLE)

    return run, _arguments(rows, heads, queries, keys, width)


def flash_backward(
    *, rows: int, heads: int, queries: int, keys: int, width: int, blocks: Sizes = None
) -> Probed:
    """The backward kernel, likewise."""

    def run(q: Any, k: Any, v: Any, q_of: Any, k_of: Any, up: Any, total: Any, inner: Any) -> Any:
        sizes = _blocks(queries, keys, blocks)
        return backward(q, k, v, q_of, k_of, up, total, inner, sizes, WHOLE)

    arguments = _arguments(rows, heads, queries, keys, width)
    scalars = jax.ShapeDtypeStruct((rows * heads, queries), jnp.float32)
    return run, (*arguments, arguments[0], scalars, scalars)


def _blocks(queries: int, keys: int, blocks: Sizes) -> Blocks:
    if blocks is None:
        return blocks_for(queries, keys, generation_at_hand())
    return Blocks(**blocks)


def _arguments(
    rows: int, heads: int, queries: int, keys: int, width: int
) -> tuple[jax.ShapeDtypeStruct, ...]:
    query = jax.ShapeDtypeStruct((rows * heads, queries, width), jnp.bfloat16)
    key = jax.ShapeDtypeStruct((rows * heads, keys, width), jnp.bfloat16)
    query_segments = jax.ShapeDtypeStruct((rows, queries), jnp.int32)
    key_segments = jax.ShapeDtypeStruct((rows, keys), jnp.int32)
    return query, key, key, query_segments, key_segments
