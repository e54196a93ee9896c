"""Attention kernels alone, with abstract arguments: what their schedules are counted on."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from sora_jax.nn.block_sizes import Blocks
from sora_jax.nn.flash_backward import backward
from sora_jax.nn.flash_forward import forward

Probed = tuple[Callable[..., Any], tuple[jax.ShapeDtypeStruct, ...]]
WHOLE = ("whole",)


def flash_forward(
    *, rows: int, heads: int, queries: int, keys: int, width: int, blocks: Mapping[str, Any]
) -> Probed:
    """The forward kernel on `rows` rows of bfloat16 arrays, each of a single clip."""
    sizes = Blocks(**blocks)

    def run(query: Any, key: Any, value: Any, query_of: Any, key_of: Any) -> Any:
        return forward(query, key, value, query_of, key_of, sizes, WHOLE)

    return run, _arguments(rows, heads, queries, keys, width)


def flash_backward(
    *, rows: int, heads: int, queries: int, keys: int, width: int, blocks: Mapping[str, Any]
) -> Probed:
    """The backward kernel, likewise."""
    sizes = Blocks(**blocks)

    def run(query: Any, key: Any, value: Any, query_of: Any, key_of: Any, *rest: Any) -> Any:
        return backward(query, key, value, query_of, key_of, *rest, sizes, WHOLE)

    arguments = _arguments(rows, heads, queries, keys, width)
    scalars = jax.ShapeDtypeStruct((rows * heads, queries), jnp.float32)
    return run, (*arguments, arguments[0], scalars, scalars)


def _arguments(
    rows: int, heads: int, queries: int, keys: int, width: int
) -> tuple[jax.ShapeDtypeStruct, ...]:
    query = jax.ShapeDtypeStruct((rows * heads, queries, width), jnp.bfloat16)
    key = jax.ShapeDtypeStruct((rows * heads, keys, width), jnp.bfloat16)
    query_segments = jax.ShapeDtypeStruct((rows, queries), jnp.int32)
    key_segments = jax.ShapeDtypeStruct((rows, keys), jnp.int32)
    return query, key, key, query_segments, key_segments
