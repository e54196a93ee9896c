"""Block sizes divide what they are for, whatever its length, and are those of the right TPU."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.sharding import Mesh

from sora_jax.config import from_dict, override, to_dict
from sora_jax.nn.attention import AttentionConfig
from sora_jax.nn.block_sizes import (
    GENERATIONS,
    LANES,
    OTHER,
    Blocks,
    Generation,
    block_of,
    blocks_for,
    generation_at_hand,
    padded_length,
)
from sora_jax.pod.chips import CHIPS
from sora_jax.pod.cost import KernelUse
from sora_jax.pod.schedule import _key
from sora_jax.pod.topology import open_topology
from sora_jax.podcheck import _probe

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
LENGTHS = st.integers(1, 200_000)


@given(st.sampled_from([*GENERATIONS, OTHER]), LENGTHS, LENGTHS)
def test_blocks_divide_the_padded_tokens_and_are_no_more_work_than_the_tables(
    generation: Generation, queries: int, keys: int
) -> None:
    found, table = blocks_for(queries, keys, generation), generation.blocks
    for tokens, sizes in (
        (queries, (found.query, found.backward_query)),
        (keys, (found.key, found.backward_key)),
    ):
        assert all(padded_length(tokens) % size == 0 for size in sizes)
    assert found.query % found.query_compute == found.key % found.key_compute == 0
    assert found.backward_key % found.backward_key_compute == 0
    assert all(size % LANES == 0 for size in vars(found).values() if isinstance(size, int))
    assert found.query * found.key <= table.query * table.key
    backward = found.backward_query * found.backward_key
    assert backward <= table.backward_query * table.backward_key
    # Asked again about padded tokens, as who reads a compiled program must, it says the same.
    assert found == blocks_for(padded_length(queries), padded_length(keys), generation)
    # And the kernels, which ask for no more than divides, take these.
    assert block_of(padded_length(keys), found.key) == found.key
    assert block_of(padded_length(queries), found.query) == found.query


@given(LENGTHS)
def test_padding_adds_little_and_nothing_to_what_is_padded(length: int) -> None:
    padded = padded_length(length)
    assert padded % LANES == 0
    assert 0 <= padded - length < max(LANES, length / 8 + 1)
    assert padded_length(padded) == padded


@pytest.mark.parametrize("generation", GENERATIONS, ids=lambda generation: generation.name)
def test_long_rows_have_large_blocks_and_captions_whole_ones(generation: Generation) -> None:
    long = blocks_for(18_900, 75_600, generation)
    assert long.query * long.key >= 2**21
    assert long.backward_query * long.backward_key >= 2**20
    caption = blocks_for(18_900, 512, generation)
    assert (caption.key, caption.backward_key) == (512, 512)
    assert caption.query >= 1024


def test_the_table_has_every_generation_by_the_names_it_goes_by() -> None:
    known = [(found.name, found.device_kind) for found in GENERATIONS]
    assert sorted(known) == sorted((chip.generation, chip.device_kind) for chip in CHIPS)


@pytest.mark.parametrize("generation", GENERATIONS, ids=lambda generation: generation.name)
def test_the_table_is_what_the_search_found(generation: Generation) -> None:
    path = RESULTS / f"attention_blocks_{generation.name}.json"
    winner = json.loads(path.read_text())["winner"]
    assert dataclasses.replace(Blocks(), **winner) == generation.blocks


def test_the_generation_is_that_of_the_mesh_and_else_of_the_machine() -> None:
    pytest.importorskip("libtpu")
    assert generation_at_hand() == OTHER
    mesh = Mesh(np.array(open_topology("v6e:2x2").devices), ("device",))
    with jax.set_mesh(mesh):
        assert generation_at_hand().name == "v6e"


def test_blocks_are_saved_and_overridden_like_any_config() -> None:
    for config in (AttentionConfig(), AttentionConfig(blocks=Blocks(query=512, hold="weights"))):
        assert from_dict(AttentionConfig, to_dict(config)) == config
    chosen = override(AttentionConfig(), "blocks=Blocks(query=512)")
    assert chosen.blocks == Blocks(query=512)
    assert override(chosen, "blocks.key=256").blocks == Blocks(query=512, key=256)
    assert override(chosen, "blocks=none").blocks is None


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_a_report_counts_the_kernel_that_the_table_makes(direction: str) -> None:
    pytest.importorskip("libtpu")
    segments = ((2, 1, 1024), (2, 1, 2048))
    operands = ((4,), (4,), (4,), (4,), (8, 1024, 128), (8, 2048, 128), (8, 2048, 128), *segments)
    use = KernelUse(f"flash_{direction}", operands, calls=1, flops=None, stated_flops=None)
    v5p = next(found for found in GENERATIONS if found.name == "v5p")

    def key(blocks: Blocks | None) -> str:
        probe = _probe(use, blocks)
        return _key(
            {
                "make": probe.make,
                "arguments": dict(probe.arguments),
                "topology": "v5p:2x2x1",
                "options": {},
            }
        )

    chosen = blocks_for(1024, 2048, v5p)
    assert key(None) == key(chosen)
    smaller = dataclasses.replace(chosen, query=128, backward_query=128)
    assert key(None) != key(smaller)
