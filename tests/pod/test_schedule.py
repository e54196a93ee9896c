"""Pallas kernels timed by their schedule: against the peak, against their grid, and kept."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

from sora_jax.errors import ConfigError
from sora_jax.pod import schedule
from sora_jax.pod.chips import GENERATIONS
from sora_jax.pod.compiler import OutOfMemory
from sora_jax.pod.schedule import Probe, ProbeFailed, kernel_cycles

pytest.importorskip("libtpu")

SIZE = 2048
V5P, V6E = "v5p:2x2x1", "v6e:2x2"
Made = tuple[Callable[..., Any], tuple[jax.ShapeDtypeStruct, ...]]


def matmul(rows: int = SIZE, block: tuple[int, int, int] = (512, 1024, 1024)) -> Made:
    """(rows, SIZE) times (SIZE, SIZE) in blocks of (rows, columns, summed)."""
    block_rows, block_columns, block_summed = block

    def kernel(x: Any, y: Any, out: Any, total: Any) -> None:
        step, last = pl.program_id(2), pl.num_programs(2) - 1

        @pl.when(step == 0)
        def clear() -> None:
            total[...] = jnp.zeros_like(total)

        total[...] += jnp.dot(x[...], y[...], preferred_element_type=jnp.float32)

        @pl.when(step == last)
        def store() -> None:
            out[...] = total[...].astype(out.dtype)

    def multiply(x: jax.Array, y: jax.Array) -> jax.Array:
        return pl.pallas_call(
            kernel,
            name="blocked_matmul",
            out_shape=jax.ShapeDtypeStruct((rows, SIZE), jnp.bfloat16),
            grid=(rows // block_rows, SIZE // block_columns, SIZE // block_summed),
            in_specs=[
                pl.BlockSpec((block_rows, block_summed), lambda i, j, k: (i, k)),
                pl.BlockSpec((block_summed, block_columns), lambda i, j, k: (k, j)),
            ],
            out_specs=pl.BlockSpec((block_rows, block_columns), lambda i, j, k: (i, j)),
            scratch_shapes=[pltpu.VMEM((block_rows, block_columns), jnp.float32)],
            compiler_params=pltpu.CompilerParams(
                dimension_semantics=("parallel", "parallel", "arbitrary")
            ),
        )(x, y)

    shapes = ((rows, SIZE), (SIZE, SIZE))
    return multiply, tuple(jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in shapes)


def splash(heads: int, tokens: int, width: int) -> Made:
    """The gradient of jax's splash attention, every token to every other."""
    from jax.experimental.pallas.ops.tpu import splash_attention

    sizes = splash_attention.BlockSizes(
        **dict.fromkeys(("block_q", "block_kv", "block_q_dkv", "block_kv_dkv"), 1024),
        **dict.fromkeys(("block_q_dq", "block_kv_dq"), 1024),
        **dict.fromkeys(("block_kv_compute", "block_kv_dkv_compute"), 512),
    )
    mask = splash_attention.MultiHeadMask([splash_attention.FullMask((tokens, tokens))] * heads)
    attend = splash_attention.make_splash_mha(
        mask, head_shards=1, q_seq_shards=1, block_sizes=sizes
    )

    def loss(*arguments: jax.Array) -> jax.Array:
        return attend(*arguments).astype(jnp.float32).sum()

    argument = jax.ShapeDtypeStruct((heads, tokens, width), jnp.bfloat16)
    return jax.grad(loss, argnums=(0, 1, 2)), (argument,) * 3


def here(function: str, **arguments: Any) -> Probe:
    return Probe(f"{__name__}:{function}", arguments)


def at_peak(flops: float, topology: str) -> float:
    """Cycles that so many operations take on a device at its peak."""
    chip = GENERATIONS[topology.partition(":")[0]]
    return flops / chip.peak_flops * chip.clock_hz


# v6e makes a product in a quarter of the cycles, and moves blocks no faster, so wants larger ones.
@pytest.mark.parametrize(
    ("topology", "block"), [(V5P, (512, 1024, 1024)), (V6E, (1024, 1024, 1024))]
)
def test_a_matmul_comes_near_the_peak_and_its_grid_multiplies(
    topology: str, block: tuple[int, int, int], tmp_path: Path
) -> None:
    counts = [
        kernel_cycles(here("matmul", rows=rows, block=block), topology, tmp_path)
        for rows in (SIZE, 2 * SIZE)
    ]
    assert [list(count) for count in counts] == [["blocked_matmul"]] * 2
    small, large = (count["blocked_matmul"] for count in counts)
    ideal = at_peak(2 * SIZE**3, topology)
    assert ideal < small.cycles < 1.25 * ideal
    assert large.cycles == pytest.approx(2 * small.cycles, rel=0.02)
    assert small.bundles < small.cycles / 2
    assert small.unknown_loops == large.unknown_loops == 0


def test_small_blocks_are_told_from_good_ones(tmp_path: Path) -> None:
    counts = [
        kernel_cycles(here("matmul", block=block), V5P, tmp_path)["blocked_matmul"].cycles
        for block in ((128, 128, 128), (512, 1024, 1024))
    ]
    assert counts[0] > 4 * counts[1]


@pytest.mark.parametrize("topology", [V5P, V6E])
def test_splash_attention_is_timed_kernel_by_kernel(topology: str, tmp_path: Path) -> None:
    heads, tokens, width = 2, 2048, 128
    counts = kernel_cycles(
        here("splash", heads=heads, tokens=tokens, width=width), topology, tmp_path
    )
    unit = at_peak(2 * heads * tokens**2 * width, topology)
    # Products of tokens x tokens x width: two forward, three for queries, four for keys and values.
    units = {"fwd": 2, "dq": 3, "dkv": 4}
    assert len(counts) == len(units)
    for name, count in counts.items():
        (products,) = (number for part, number in units.items() if f"_{part}_" in name)
        assert products * unit < count.cycles < 5 * products * unit, name
        assert count.unknown_loops == 0


def test_a_count_is_kept_and_a_change_counted_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probe = here("matmul", block=[256, 256, 256])
    counted = kernel_cycles(probe, V5P, tmp_path)
    (kept,) = tmp_path.iterdir()
    assert json.loads(kept.read_text())["request"]["make"] == probe.make

    def refuse(request: Any) -> Any:
        raise AssertionError("compiled again")

    monkeypatch.setattr(schedule, "_compile_in_child", refuse)
    assert kernel_cycles(probe, V5P, tmp_path) == counted
    # Another slice of the same generation has the same cores.
    assert kernel_cycles(probe, "v5p:4x4x4", tmp_path) == counted
    for change in (
        (here("matmul", block=[256, 256, 512]), V5P, {}),
        (probe, V6E, {}),
        (probe, V5P, {"xla_tpu_scoped_vmem_limit_kib": 32768}),
    ):
        with pytest.raises(AssertionError, match="compiled again"):
            kernel_cycles(change[0], change[1], tmp_path, change[2])


def test_blocks_that_do_not_fit_are_refused_with_figures(tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory, match="kernel blocked_matmul.* needs .* of VMEM") as info:
        kernel_cycles(here("matmul", block=[1024, 1024, 1024]), V5P, tmp_path)
    assert info.value.needed > info.value.available
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("make", ["matmul", f"{__name__}:no_such", "no_such.module:make"])
def test_a_probe_that_is_none_is_named(make: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"there is no probe '{make}'"):
        kernel_cycles(Probe(make), V5P, tmp_path)


def test_a_failing_child_shows_why(tmp_path: Path) -> None:
    with pytest.raises(ProbeFailed, match="xla_tpu_no_such_flag"):
        kernel_cycles(here("matmul"), V5P, tmp_path, {"xla_tpu_no_such_flag": True})
