"""What the kernels of flash attention have in common: blocks, the order of work, products.

Scores are in units of log 2: queries come in scaled by log2(e) / sqrt(width), softmax is 2^score,
and the log-sum that goes out is in base 2. Rows and heads share one axis g. Numbers of blocks: i of
queries, j of keys. A pair of blocks that share no segment is skipped, one of a single segment is
computed without comparing segments, and of the rest, at the ends of clips, there are few.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu
from jaxtyping import Array, Float

from sora_jax.nn.block_sizes import LANES, generation_at_hand

MASKED = -1e30  # finite: a row that sees nothing makes no NaN

Queries = Float[Array, "g q k"]
Keys = Float[Array, "g s k"]
Bounds = tuple[Array, Array, Array, Array]  # lowest and highest segment of each block
# Ways to compute a pair of blocks that a kernel has: of one segment, of several. All but counts of
# cycles need both.
Ways = tuple[Literal["whole", "mixed"], ...]
FEW = 4  # parts of a block that are unrolled at most, and at most half, where not all are
BOTH: Ways = ("whole", "mixed")


def bounds_of(
    query_segments: Array, key_segments: Array, query_block: int, key_block: int
) -> Bounds:
    """Lowest and highest segment in each block, flat: what tells how a pair is to be computed."""

    def ends(segments: Array, block: int) -> tuple[Array, Array]:
        parts = segments.reshape(-1, block)
        return jnp.min(parts, -1), jnp.max(parts, -1)

    return (*ends(query_segments, query_block), *ends(key_segments, key_block))


def row_of(number: Any, heads: int) -> Any:
    """Row of the batch that a number along rows x heads belongs to. Python's // takes signs, which
    Mosaic asks the TPU at hand about."""
    return jax.lax.div(number, jnp.int32(heads))


def for_pair(
    bounds: tuple[Any, ...],
    query_block: Any,
    key_block: Any,
    add: Callable[[bool], None],
    ways: Ways,
) -> None:
    """Computes a pair of blocks by add(masked), unless no query of it sees a key."""
    query_low, query_high, key_low, key_high = bounds
    lowest = jnp.minimum(query_low[query_block], key_low[key_block])
    highest = jnp.maximum(query_high[query_block], key_high[key_block])
    whole = lowest == highest
    apart = key_high[key_block] < query_low[query_block]
    apart |= query_high[query_block] < key_low[key_block]
    if "whole" in ways:
        pl.when(whole)(lambda: add(False))
    if "mixed" in ways:
        pl.when(~(whole | apart))(lambda: add(True))


def in_parts(
    length: int, size: int, compute: Callable[[list[Any]], None], *, unrolled: bool
) -> None:
    """Calls compute with the slices of `size` that `length` keys fall into: with all of them, or in
    a loop with a few at a time. Unrolled code is fast and long: for what is done often."""
    count = length // size
    few = count if unrolled else max(1, math.gcd(count, 2 * FEW) // 2)

    def body(number: Any, carry: None) -> None:
        starts = [(few * number + at) * size for at in range(few)]
        compute([pl.ds(pl.multiple_of(start, size), size) for start in starts])

    if few == count:
        compute([pl.ds(start, size) for start in range(0, length, size)])
    else:
        jax.lax.fori_loop(0, count // few, body, None)


def overlapped(
    parts: Sequence[Any],
    scores: Callable[[Any], Any],
    weigh: Callable[[Any, Any], Any],
    add: Callable[[Any, Any], None],
) -> None:
    """Runs add(part, weigh(part, scores(part))) for each part, in an order in which the matrix unit
    has work while the vector unit weighs.

    The compiler keeps nearly to the order of the program, so matmuls of the next part, and of the
    one before, are placed around the vector work of this one.
    """
    ahead, behind = scores(parts[0]), None
    for number, part in enumerate(parts):
        here = ahead
        if number + 1 < len(parts):
            ahead = scores(parts[number + 1])
        weighed = weigh(part, here)
        if behind is not None:
            add(*behind)
        behind = part, weighed
    if behind is not None:
        add(*behind)


def call(
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
        compiler_params=pltpu.CompilerParams(
            # Heads may go to either core of a chip that has two.
            dimension_semantics=("parallel", "arbitrary", "arbitrary"),
            vmem_limit_bytes=generation_at_hand().vmem_limit,
        ),
        name=name,
    )


def column(x: Any) -> Any:
    """Of numbers along the lanes, [1, n]: down the sublanes, the same in all lanes, [n, LANES]."""
    return jnp.transpose(jnp.broadcast_to(x, (LANES, x.shape[1])))


def tiled(x: Any, times: int) -> Any:
    """x beside itself: what is the same in all lanes, as wide as is needed."""
    return jnp.tile(x, (1, times))


def product(x: Any, y: Any, *, transposed: bool = False) -> Any:
    """x @ y, or x @ y^T, in float32."""
    contracting = ((1,), (1,)) if transposed else ((1,), (0,))
    return jax.lax.dot_general(x, y, (contracting, ((), ())), preferred_element_type=jnp.float32)


def transposed_product(x: Any, y: Any) -> Any:
    """x^T @ y, in float32."""
    return jax.lax.dot_general(x, y, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
