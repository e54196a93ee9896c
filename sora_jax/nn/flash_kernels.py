"""The two Pallas kernels of flash attention: forward, and all three gradients in one.

Scores are in units of log 2: queries come in scaled by log2(e) / sqrt(width), softmax is 2^score,
and the log-sum that goes out is in base 2. Rows and heads share one axis g. Numbers of blocks: i of
queries, j of keys. A pair of blocks that share no segment is skipped.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float, Int

LANES = 128  # width of a TPU register: heads are multiples of it, and so are blocks of tokens
# Heads may go to either core of a chip that has two. A core has at least 64 MiB of VMEM.
PARAMETERS = pltpu.CompilerParams(
    dimension_semantics=("parallel", "arbitrary", "arbitrary"), vmem_limit_bytes=60 * 2**20
)
MASKED = -1e30  # finite: a row that sees nothing makes no NaN

Queries = Float[Array, "g q k"]
Keys = Float[Array, "g s k"]
Bounds = tuple[Array, Array, Array, Array]  # lowest and highest segment of each block


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Tokens that a TPU kernel holds at once: of queries, of keys in memory, of keys in a multiply;
    the largest multiples of 128 up to these that divide the tokens are taken."""

    query: int = 1024
    key: int = 2048
    key_compute: int = 512
    backward_query: int = 1024
    backward_key: int = 1024


def block_of(length: int, most: int) -> int:
    """The largest multiple of LANES up to `most` that divides `length`, itself a multiple."""
    return next(size for size in range(min(most, length), 0, -LANES) if length % size == 0)


def _bounds(query_segments: Array, key_segments: Array, query_block: int, key_block: int) -> Bounds:
    """Lowest and highest segment in each block, flat: what tells that a pair has nothing to do."""

    def ends(segments: Array, block: int) -> tuple[Array, Array]:
        parts = segments.reshape(-1, block)
        return jnp.min(parts, -1), jnp.max(parts, -1)

    return (*ends(query_segments, query_block), *ends(key_segments, key_block))


def _row(number: Any, heads: int) -> Any:
    """Row of the batch that a number along rows x heads belongs to. Python's // takes signs, which
    Mosaic asks the TPU at hand about."""
    return jax.lax.div(number, jnp.int32(heads))


def _meet(bounds: tuple[Any, ...], query_block: Any, key_block: Any) -> Any:
    """Whether some query of a block may see some key of another, by their numbers."""
    query_low, query_high, key_low, key_high = bounds
    apart = key_high[key_block] < query_low[query_block]
    return ~(apart | (query_high[query_block] < key_low[key_block]))


def _call(
    kernel: Callable[..., None],
    grid: tuple[int, int, int],
    *,
    in_specs: list[pl.BlockSpec],
    out_specs: list[pl.BlockSpec],
    scratch: list[tuple[int, ...]],
    out_shapes: list[jax.ShapeDtypeStruct],
    name: str,
) -> Any:
    """A Pallas call whose first four arguments are bounds, and whose scratch is float32 in VMEM."""
    return pl.pallas_call(
        kernel,
        grid_spec=pltpu.PrefetchScalarGridSpec(
            num_scalar_prefetch=4,
            grid=grid,
            in_specs=in_specs,
            out_specs=out_specs,
            scratch_shapes=[pltpu.VMEM(shape, jnp.float32) for shape in scratch],
        ),
        out_shape=out_shapes,
        compiler_params=PARAMETERS,
        name=name,
    )


def forward(
    query: Queries,
    key: Keys,
    value: Keys,
    query_segments: Array,
    key_segments: Array,
    blocks: Blocks,
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
        key_compute=block_of(block_k, blocks.key_compute),
    )
    of_query = pl.BlockSpec((None, block_q, width), lambda h, i, j, *_: (h, i, 0))
    of_key = pl.BlockSpec((None, block_k, width), lambda h, i, j, *_: (h, j, 0))
    out, total = _call(
        kernel,
        (joined, query_blocks, key_blocks),
        in_specs=[
            of_query,
            of_key,
            of_key,
            pl.BlockSpec((None, block_q, LANES), lambda h, i, j, *_: (_row(h, heads), i, 0)),
            pl.BlockSpec((None, 1, block_k), lambda h, i, j, *_: (_row(h, heads), 0, j)),
        ],
        out_specs=[of_query, pl.BlockSpec((None, 1, block_q), lambda h, i, j, *_: (h, 0, i))],
        scratch=[(block_q, LANES), (block_q, LANES), (block_q, width)],
        out_shapes=[
            jax.ShapeDtypeStruct(query.shape, query.dtype),
            jax.ShapeDtypeStruct((joined, 1, queries), jnp.float32),
        ],
        name="flash_forward",
    )(
        *_bounds(query_segments, key_segments, block_q, block_k),
        query,
        key,
        value,
        _columns(query_segments),
        key_segments[:, None],
    )
    return out, total[:, 0]


def _columns(segments: Int[Array, "b n"]) -> Int[Array, "b n lanes"]:
    """Segments down the sublanes, the same in all lanes."""
    return jnp.broadcast_to(segments[..., None], (*segments.shape, LANES))


def _forward_kernel(
    *references: Any, heads: int, query_blocks: int, key_blocks: int, key_compute: int
) -> None:
    """One block of queries and one of keys; `highest`, `sums` and `mixed` are of the keys so far,
    the first two the same in all lanes."""
    bounds, rest = references[:4], references[4:]
    query, key, value, query_segments, key_segments, out, total, highest, sums, mixed = rest
    h, i, j = (pl.program_id(axis) for axis in range(3))
    row = _row(h, heads)
    width = query.shape[-1]

    @pl.when(j == 0)
    def _start() -> None:
        highest[...] = jnp.full_like(highest, MASKED)
        sums[...] = jnp.zeros_like(sums)
        mixed[...] = jnp.zeros_like(mixed)

    @pl.when(_meet(bounds, row * query_blocks + i, row * key_blocks + j))
    def _add() -> None:
        for start in range(0, key.shape[0], key_compute):
            some = pl.ds(start, key_compute)
            scores = _product(query[...], key[some], transposed=True)
            columns = _tiled(query_segments[...], key_compute // LANES)
            scores = jnp.where(columns == key_segments[:, some], scores, MASKED)
            before = highest[...]
            after = jnp.maximum(before, jnp.max(scores, 1)[:, None])
            weights = jnp.exp2(scores - _tiled(after, key_compute // LANES))
            kept = jnp.exp2(before - after)
            highest[...] = after
            sums[...] = kept * sums[...] + jnp.sum(weights, 1)[:, None]
            update = _product(weights.astype(value.dtype), value[some])
            mixed[...] = _tiled(kept, width // LANES) * mixed[...] + update

    @pl.when(j == key_blocks - 1)
    def _finish() -> None:
        positive = jnp.maximum(sums[...], 1e-30)
        out[...] = (mixed[...] / _tiled(positive, width // LANES)).astype(out.dtype)
        total[...] = jnp.transpose(highest[...] + jnp.log2(positive))[:1]


def _tiled(x: Any, times: int) -> Any:
    """x beside itself: what is the same in all lanes, as wide as is needed."""
    return jnp.tile(x, (1, times))


def _product(x: Any, y: Any, *, transposed: bool = False) -> Any:
    """x @ y, or x @ y^T, in float32."""
    contracting = ((1,), (1,)) if transposed else ((1,), (0,))
    return jax.lax.dot_general(x, y, (contracting, ((), ())), preferred_element_type=jnp.float32)


# ---- backward


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
    of_scalar = pl.BlockSpec((None, 1, block_q), lambda h, j, i, *_: (h, 0, i))

    def written(h: Any, j: Any, i: Any, *_: Any) -> tuple[Any, Any, Any]:
        return h, jnp.where(j == key_blocks - 1, i, 0), 0  # before the last block nothing is whole

    kernel = functools.partial(
        _backward_kernel, heads=heads, query_blocks=query_blocks, key_blocks=key_blocks
    )
    return _call(
        kernel,
        (joined, key_blocks, query_blocks),
        in_specs=[
            of_query,
            of_key,
            of_key,
            pl.BlockSpec((None, 1, block_q), lambda h, j, i, *_: (_row(h, heads), 0, i)),
            pl.BlockSpec((None, block_k, LANES), lambda h, j, i, *_: (_row(h, heads), j, 0)),
            of_query,
            of_scalar,
            of_scalar,
        ],
        out_specs=[pl.BlockSpec((None, block_q, width), written), of_key, of_key],
        scratch=[(queries, width), (block_k, width), (block_k, width)],
        out_shapes=[jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (query, key, value)],
        name="flash_backward",
    )(
        *_bounds(query_segments, key_segments, block_q, block_k),
        query,
        key,
        value,
        query_segments[:, None],
        _columns(key_segments),
        upstream,
        total[:, None],
        inner[:, None],
    )


def _backward_kernel(*references: Any, heads: int, query_blocks: int, key_blocks: int) -> None:
    """One block of keys and one of queries, with scores transposed, keys x queries, so that of the
    five matmuls only the one of the queries' gradient transposes what it multiplies."""
    bounds, inputs, outputs = references[:4], references[4:12], references[12:]
    query, key, value, query_segments, key_segments, upstream, total, inner = inputs
    query_out, key_out, value_out, query_sum, key_sum, value_sum = outputs
    h, j, i = (pl.program_id(axis) for axis in range(3))
    row = _row(h, heads)
    block_q = query.shape[0]
    rows = pl.ds(i * block_q, block_q)

    @pl.when(j == 0)
    def _start_queries() -> None:
        query_sum[rows] = jnp.zeros_like(query, jnp.float32)

    @pl.when(i == 0)
    def _start_keys() -> None:
        key_sum[...] = jnp.zeros_like(key_sum)
        value_sum[...] = jnp.zeros_like(value_sum)

    @pl.when(_meet(bounds, row * query_blocks + i, row * key_blocks + j))
    def _add() -> None:
        scores = _product(key[...], query[...], transposed=True)
        columns = _tiled(key_segments[...], block_q // LANES)
        scores = jnp.where(columns == query_segments[...], scores, MASKED)
        weights = jnp.exp2(scores - total[...])
        value_sum[...] += _product(weights.astype(upstream.dtype), upstream[...])
        product = _product(value[...], upstream[...], transposed=True)
        slopes = (weights * (product - inner[...])).astype(query.dtype)
        key_sum[...] += _product(slopes, query[...])
        query_sum[rows] += jax.lax.dot_general(
            slopes, key[...], (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )

    @pl.when(i == query_blocks - 1)
    def _finish_keys() -> None:  # a score is log2(e) times what the softmax's derivative is for
        key_out[...] = (key_sum[...] * math.log(2)).astype(key_out.dtype)
        value_out[...] = value_sum[...].astype(value_out.dtype)

    @pl.when(j == key_blocks - 1)
    def _finish_queries() -> None:
        query_out[...] = (query_sum[rows] * math.log(2)).astype(query_out.dtype)
