"""How many tokens the TPU kernels of attention hold at once, by generation of TPU and by length.

The table is what `python -m benchmarks.attention_blocks` found best by libtpu's schedules: the
kernels of each generation, long rows of one clip, heads of 128. Shorter code comes first where two
are within 1 %.
"""

import dataclasses
from typing import Literal

from sora_jax.sharding.mesh import device_kind

LANES = 128  # width of a TPU register: heads are multiples of it, and so are blocks of tokens
PADDINGS = (1024, 512, 256)  # multiples that at least eight times as many tokens are padded to
Hold = Literal["values", "weights"]


@dataclasses.dataclass(frozen=True)
class Blocks:
    """Tokens that a TPU kernel holds at once: the largest multiples of 128 up to these that divide
    the tokens are taken.

    query, key: in VMEM. query_compute, key_compute: in one multiply. hold: what of weights x values
    stays in the matrix unit (see flash_forward.py). backward_...: the same of the backward kernel,
    which multiplies all queries in VMEM at once.
    """

    query: int = 1024
    key: int = 2048
    query_compute: int = 1024
    key_compute: int = 512
    hold: Hold = "values"
    backward_query: int = 1024
    backward_key: int = 1024
    backward_key_compute: int = 256


@dataclasses.dataclass(frozen=True)
class Generation:
    """A generation of TPU: its name, how jax calls its devices, bytes of VMEM that a kernel may
    take, and blocks for tokens that they divide."""

    name: str
    device_kind: str
    vmem_limit: int
    blocks: Blocks


V5_BLOCKS = Blocks(
    query=1024,
    key=4096,
    query_compute=1024,
    key_compute=512,
    hold="values",
    backward_query=1024,
    backward_key=2048,
    backward_key_compute=1024,
)
V6_BLOCKS = Blocks(
    query=1024,
    key=4096,
    query_compute=512,
    key_compute=256,
    hold="weights",
    backward_query=1024,
    backward_key=2048,
    backward_key_compute=256,
)
V7_BLOCKS = dataclasses.replace(V6_BLOCKS, backward_query=2048, backward_key=1024)
GENERATIONS = (
    Generation("v5e", "TPU v5 lite", 120 * 2**20, V5_BLOCKS),
    Generation("v5p", "TPU v5", 60 * 2**20, V5_BLOCKS),
    Generation("v6e", "TPU v6 lite", 120 * 2**20, V6_BLOCKS),
    Generation("tpu7x", "TPU7x", 60 * 2**20, V7_BLOCKS),
)
# What is not in the table, a CPU that interprets kernels among them.
OTHER = Generation("other", "", 60 * 2**20, Blocks())


def generation_at_hand() -> Generation:
    """That of the devices that a program is traced for."""
    kind = device_kind()
    return next((found for found in GENERATIONS if found.device_kind == kind), OTHER)


def blocks_for(queries: int, keys: int, generation: Generation) -> Blocks:
    """The table's blocks for so many tokens on a device, before padding.

    What a block of queries has less than the table says, because tokens do not divide or are few,
    a block of keys has more, and the other way round: the work of a step, beside which its start
    and its end are small, stays. At most it has twice the table's.
    """
    table = generation.blocks
    queries, keys = padded_length(queries), padded_length(keys)
    query, key = _together(
        queries, keys, table.query, table.key, table.query_compute, table.key_compute
    )
    backward_query, backward_key = _together(
        queries, keys, table.backward_query, table.backward_key, LANES, table.backward_key_compute
    )
    return dataclasses.replace(
        table,
        query=query,
        key=key,
        query_compute=block_of(query, table.query_compute),
        key_compute=block_of(key, table.key_compute),
        backward_query=backward_query,
        backward_key=backward_key,
        backward_key_compute=block_of(backward_key, table.backward_key_compute),
    )


def _together(
    queries: int, keys: int, query: int, key: int, query_unit: int, key_unit: int
) -> tuple[int, int]:
    """Blocks of queries and of keys whose product is about query x key."""
    key_block = block_of(keys, key, key_unit)
    query_block = block_of(queries, min(query * key // key_block, 2 * query), query_unit)
    if query_block < query:
        key_block = block_of(keys, min(query * key // query_block, 2 * key), key_unit)
    return query_block, key_block


def block_of(length: int, most: int, unit: int = LANES) -> int:
    """The largest multiple of `unit` up to `most` that divides `length`, itself a multiple of
    LANES; of LANES where there is none."""
    for step in (unit, LANES):
        for size in range(min(most, length) // step * step, 0, -step):
            if length % size == 0:
                return size
    raise ValueError(f"{length} tokens are no multiple of {LANES}")


def padded_length(length: int) -> int:
    """Tokens that kernels compute for so many: a multiple of LANES, and of more where that adds at
    most an eighth, since small blocks are slow. Of what it gives, it gives the same."""
    multiple = next((size for size in PADDINGS if length >= 8 * size), LANES)
    return -(-length // multiple) * multiple
