"""The backward kernel of flash attention for TPU: all three gradients in one."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from sora_jax.nn.block_sizes import LANES, Blocks, block_of
from sora_jax.nn.flash_kernels import (
    BOTH,
    MASKED,
    Keys,
    Queries,
    Ways,
    bounds_of,
    call,
    column,
    for_pair,
    in_parts,
    overlapped,
    product,
    row_of,
    tiled,
    transposed_product,
)


def backward(
    query: Queries,
    key: Keys,
    value: Keys,
    query_segments: Array,
    key_segments: Array,
    upstream: Queries,
    total: Float[Array, "g q"],
    inner: Float[Array, "g q"],
    blocks: Blocks,
    ways: Ways = BOTH,
) -> tuple[Queries, Keys, Keys]:
    """Gradients with respect to scaled queries, keys and values.

    `inner` is the sum over width of output x upstream. `total` may be over more keys than are
    given: then these are the gradients' parts through the keys that are.
    """
    (joined, queries, width), keys = query.shape, key.shape[1]
    heads = joined // query_segments.shape[0]
    block_q = block_of(queries, blocks.backward_query)
    block_k = block_of(keys, blocks.backward_key)
    query_blocks, key_blocks = queries // block_q, keys // block_k
    of_query = pl.BlockSpec((None, block_q, width), lambda h, j, i, *_: (h, i, 0))
    of_key = pl.BlockSpec((None, block_k, width), lambda h, j, i, *_: (h, j, 0))
    of_segments = [
        pl.BlockSpec((None, 1, block_q), lambda h, j, i, *_: (row_of(h, heads), 0, i)),
        pl.BlockSpec((None, 1, block_k), lambda h, j, i, *_: (row_of(h, heads), 0, j)),
    ]
    of_scalar = pl.BlockSpec((None, 1, block_q), lambda h, j, i, *_: (h, 0, i))

    def written(h: Any, j: Any, i: Any, *_: Any) -> tuple[Any, Any, Any]:
        return h, jnp.where(j == key_blocks - 1, i, 0), 0  # before the last block nothing is whole

    kernel = functools.partial(
        _backward_kernel,
        heads=heads,
        query_blocks=query_blocks,
        key_blocks=key_blocks,
        key_compute=block_of(block_k, blocks.backward_key_compute),
        ways=ways,
    )
    return call(
        kernel,
        (joined, key_blocks, query_blocks),
        in_specs=[of_query, of_key, of_key, *of_segments, of_query, of_scalar, of_scalar],
        out_specs=[pl.BlockSpec((None, block_q, width), written), of_key, of_key],
        scratch=[(queries, width), (width, block_k), (width, block_k)],
        out_shapes=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (query, key, value)],
        name="flash_backward",
    )(
        *bounds_of(query_segments, key_segments, block_q, block_k),
        *(query, key, value, query_segments[:, None], key_segments[:, None], upstream),
        *(total[:, None], inner[:, None]),
    )


def _backward_kernel(
    *references: Any, heads: int, query_blocks: int, key_blocks: int, key_compute: int, ways: Ways
) -> None:
    """One block of keys and one of queries.

    Gradients of keys and values are summed transposed, width x keys: then their matmuls hold the
    weights still in the matrix unit, and queries, of which there are less, go through. Where it is
    256 wide (v6e, tpu7x) and heads are 128, that is twice as fast as weights that go through.
    """
    bounds, inputs, outputs = references[:4], references[4:12], references[12:]
    query, key, value, query_segments, key_segments, upstream, total, inner = inputs
    query_out, key_out, value_out, query_sum, key_sum, value_sum = outputs
    h, j, i = (pl.program_id(axis) for axis in range(3))
    row, times = row_of(h, heads), key_compute // LANES
    rows = pl.ds(i * query.shape[0], query.shape[0])

    @pl.when(j == 0)
    def _start_queries() -> None:
        query_sum[rows] = jnp.zeros_like(query, jnp.float32)

    @pl.when(i == 0)
    def _start_keys() -> None:
        key_sum[...] = jnp.zeros_like(key_sum)
        value_sum[...] = jnp.zeros_like(value_sum)

    def add(masked: bool) -> None:
        totals, inners = tiled(column(total[...]), times), tiled(column(inner[...]), times)
        segments = tiled(column(query_segments[...]), times) if masked else None

        def products(part: Any) -> Any:
            scores = product(query[...], key[part], transposed=True)
            if segments is not None:
                scores = jnp.where(segments == key_segments[:, part], scores, MASKED)
            return scores, product(upstream[...], value[part], transposed=True)

        def weigh(part: Any, products: Any) -> Any:
            scores, product = products
            weights = jnp.exp2(scores - totals)
            slopes = weights * (product - inners)
            return weights.astype(upstream.dtype), slopes.astype(query.dtype)

        def sum_up(part: Any, weighed: Any) -> None:
            weights, slopes = weighed
            value_sum[:, part] += transposed_product(upstream[...], weights)
            key_sum[:, part] += transposed_product(query[...], slopes)
            query_sum[rows] += product(slopes, key[part])

        compute = functools.partial(overlapped, scores=products, weigh=weigh, add=sum_up)
        in_parts(key.shape[0], key_compute, compute, unrolled=not masked)

    for_pair(bounds, row * query_blocks + i, row * key_blocks + j, add, ways)

    @pl.when(i == query_blocks - 1)
    def _finish_keys() -> None:  # a score is log2(e) times what the softmax's derivative is for
        key_out[...] = (jnp.transpose(key_sum[...]) * math.log(2)).astype(key_out.dtype)
        value_out[...] = jnp.transpose(value_sum[...]).astype(value_out.dtype)

    @pl.when(j == key_blocks - 1)
    def _finish_queries() -> None:
        query_out[...] = (query_sum[rows] * math.log(2)).astype(query_out.dtype)
