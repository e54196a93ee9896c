"""Attention kernels alone, with abstract arguments: what their schedules are counted on."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sora_jax.nn.flash_kernels import Blocks, backward, forward


def flash_alone(
    *, rows: int, heads: int, queries: int, keys: int, width: int, blocks: Mapping[str, int]
) -> tuple[Callable[..., Any], tuple[jax.ShapeDtypeStruct, ...]]:
    """The forward kernel alone. Rows of sampling are longer than a backward kernel could hold."""
    _, arguments = flash(
        rows=rows, heads=heads, queries=queries, keys=keys, width=width, blocks=blocks
    )
    return functools.partial(forward, blocks=Blocks(**blocks)), arguments


def flash(
    *, rows: int, heads: int, queries: int, keys: int, width: int, blocks: Mapping[str, int]
) -> tuple[Callable[..., Any], tuple[jax.ShapeDtypeStruct, ...]]:
    """Forward and backward kernel on `rows` rows of bfloat16 arrays."""
    sizes = Blocks(**blocks)
    query = jax.ShapeDtypeStruct((rows * heads, queries, width), jnp.bfloat16)
    key = jax.ShapeDtypeStruct((rows * heads, keys, width), jnp.bfloat16)
    query_segments = jax.ShapeDtypeStruct((rows, queries), jnp.int32)
    key_segments = jax.ShapeDtypeStruct((rows, keys), jnp.int32)

    def both(query: Any, key: Any, value: Any, query_of: Any, key_of: Any) -> Any:
        out, total = forward(query, key, value, query_of, key_of, sizes)
        inner = jnp.sum(out.astype(jnp.float32), -1)
        return backward(query, key, value, query_of, key_of, out, total, inner, sizes)

    return both, (query, key, key, query_segments, key_segments)
