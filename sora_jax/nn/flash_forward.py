"""The forward kernel of flash attention for TPU, output and log-sum, in two layouts of one sum.

A matrix unit holds one operand of a matmul still and lets the other go through. Of weights x values
it may hold the values, and scores are queries x keys; or the weights, and scores are keys x
queries. Held weights take half as long where the unit is 256 wide (v6e, tpu7x) and a head 128,
which fills half of it; elsewhere as long, and the maximum down the keys keeps the matrix unit
waiting, which the maximum along a row does not.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jaxtyping import Array, Float

from sora_jax.nn.block_sizes import LANES, Blocks, Hold, block_of
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


def forward(
    query: Queries,
    key: Keys,
    value: Keys,
    query_segments: Array,
    key_segments: Array,
    blocks: Blocks,
    ways: Ways = BOTH,
) -> tuple[Queries, Float[Array, "g q"]]:
    """Output and log-sum. Queries are scaled, tokens multiples of LANES, padded keys NOBODY's."""
    (joined, queries, width), keys = query.shape, key.shape[1]
    heads = joined // query_segments.shape[0]
    block_q, block_k = block_of(queries, blocks.query), block_of(keys, blocks.key)
    query_blocks, key_blocks = queries // block_q, keys // block_k
    kernel = functools.partial(
        _forward_kernel,
        heads=heads,
        query_blocks=query_blocks,
        key_blocks=key_blocks,
        query_compute=block_of(block_q, blocks.query_compute),
        key_compute=block_of(block_k, blocks.key_compute),
        hold=blocks.hold,
        ways=ways,
    )
    of_query = pl.BlockSpec((None, block_q, width), lambda h, i, j, *_: (h, i, 0))
    of_key = pl.BlockSpec((None, block_k, width), lambda h, i, j, *_: (h, j, 0))
    scratch: list[tuple[int, ...]]
    if blocks.hold == "weights":
        scratch = [(1, block_q), (1, block_q), (width, block_q)]
    else:
        scratch = [(block_q, LANES), (block_q, LANES), (block_q, width)]
    out, total = call(
        kernel,
        (joined, query_blocks, key_blocks),
        in_specs=[
            of_query,
            of_key,
            of_key,
            pl.BlockSpec((None, 1, block_q), lambda h, i, j, *_: (row_of(h, heads), 0, i)),
            pl.BlockSpec((None, 1, block_k), lambda h, i, j, *_: (row_of(h, heads), 0, j)),
        ],
        out_specs=[of_query, pl.BlockSpec((None, 1, block_q), lambda h, i, j, *_: (h, 0, i))],
        scratch=scratch,
        out_shapes=[
            jax.ShapeDtypeStruct(query.shape, query.dtype),
            jax.ShapeDtypeStruct((joined, 1, queries), jnp.float32),
        ],
        name="flash_forward",
    )(
        *bounds_of(query_segments, key_segments, block_q, block_k),
        query,
        key,
        value,
        query_segments[:, None],
        key_segments[:, None],
    )
    return out, total[:, 0]


def _forward_kernel(
    *references: Any,
    heads: int,
    query_blocks: int,
    key_blocks: int,
    query_compute: int,
    key_compute: int,
    hold: Hold,
    ways: Ways,
) -> None:
    """One block of queries and one of keys. `highest`, `sums` and `mixed` are of the keys so far:
    the highest scores, and sums of weights and of weighted values on their scale."""
    bounds, inputs, (out, total) = references[:4], references[4:9], references[9:11]
    sums = references[11:]
    query, key = inputs[:2]
    highest = sums[0]
    h, i, j = (pl.program_id(axis) for axis in range(3))
    row = row_of(h, heads)
    stages, finish = (_holding_weights if hold == "weights" else _holding_values)(inputs, sums)
    queries = [slice(at, at + query_compute) for at in range(0, query.shape[0], query_compute)]

    @pl.when(j == 0)
    def _start() -> None:
        highest[...] = jnp.full_like(highest, MASKED)
        for other in sums[1:]:
            other[...] = jnp.zeros_like(other)

    def add(masked: bool) -> None:
        def compute(parts: list[Any]) -> None:
            overlapped([(q, k) for k in parts for q in queries], *stages(masked))

        in_parts(key.shape[0], key_compute, compute, unrolled=not masked)

    for_pair(bounds, row * query_blocks + i, row * key_blocks + j, add, ways)

    @pl.when(j == key_blocks - 1)
    def _finish() -> None:
        out[...], total[...] = finish(out.dtype)


Stages = tuple[Callable[[Any], Any], Callable[[Any, Any], Any], Callable[[Any, Any], None]]
Layout = tuple[Callable[[bool], Stages], Callable[[Any], tuple[Any, Any]]]


def _holding_values(inputs: tuple[Any, ...], so_far: tuple[Any, ...]) -> Layout:
    """Scores are queries x keys. `highest` is the same in all lanes; each lane of `sums` has every
    128th key, and the end adds them up."""
    query, key, value, query_segments, key_segments = inputs
    highest, sums, mixed = so_far
    width = query.shape[1]

    def stages(masked: bool) -> Stages:
        segments = column(query_segments[...]) if masked else None

        def scores(part: Any) -> Any:
            q, k = part
            scores = product(query[q], key[k], transposed=True)
            if segments is None:
                return scores
            same = tiled(segments[q], k.size // LANES) == key_segments[:, k]
            return jnp.where(same, scores, MASKED)

        def weigh(part: Any, scores: Any) -> Any:
            q, k = part
            before = highest[q]
            after = jnp.maximum(before, jnp.max(scores, 1)[:, None])
            weights = jnp.exp2(scores - tiled(after, k.size // LANES))
            kept = jnp.exp2(before - after)
            highest[q] = after
            # Whole registers: to add up the lanes of each would take as long again.
            sums[q] = kept * sums[q] + sum(
                weights[:, at : at + LANES] for at in range(0, k.size, LANES)
            )
            return kept, weights.astype(value.dtype)

        def mix(part: Any, weighed: Any) -> None:
            q, k = part
            kept, weights = weighed
            mixed[q] = tiled(kept, width // LANES) * mixed[q] + product(weights, value[k])

        return scores, weigh, mix

    def finish(dtype: Any) -> tuple[Any, Any]:
        positive = jnp.maximum(jnp.sum(sums[...], 1)[:, None], 1e-30)
        total = jnp.transpose(highest[...] + jnp.log2(positive))[:1]
        return (mixed[...] / positive).astype(dtype), total

    return stages, finish


def _holding_weights(inputs: tuple[Any, ...], so_far: tuple[Any, ...]) -> Layout:
    """Scores are keys x queries, and `mixed` is width x queries."""
    query, key, value, query_segments, key_segments = inputs
    highest, sums, mixed = so_far

    def stages(masked: bool) -> Stages:
        def scores(part: Any) -> Any:
            q, k = part
            scores = product(key[k], query[q], transposed=True)
            if not masked:
                return scores
            times = (q.stop - q.start) // LANES
            same = tiled(column(key_segments[:, k]), times) == query_segments[:, q]
            return jnp.where(same, scores, MASKED)

        def weigh(part: Any, scores: Any) -> Any:
            q, _ = part
            before = highest[:, q]
            after = jnp.maximum(before, jnp.max(scores, 0, keepdims=True))
            weights = jnp.exp2(scores - after)
            kept = jnp.exp2(before - after)
            highest[:, q] = after
            sums[:, q] = kept * sums[:, q] + jnp.sum(weights, 0, keepdims=True)
            return kept, weights.astype(value.dtype)

        def mix(part: Any, weighed: Any) -> None:
            q, k = part
            kept, weights = weighed
            mixed[:, q] = kept * mixed[:, q] + transposed_product(value[k], weights)

        return scores, weigh, mix

    def finish(dtype: Any) -> tuple[Any, Any]:
        positive = jnp.maximum(sums[...], 1e-30)
        return jnp.transpose(mixed[...] / positive).astype(dtype), highest[...] + jnp.log2(positive)

    return stages, finish
