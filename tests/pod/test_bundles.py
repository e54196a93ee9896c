"""Cycles counted in small programs, written as libtpu writes its bundles."""

import pytest

from sora_jax.pod.bundles import KernelCycles, count_cycles

EMPTY = "{}"


def program(bundles: dict[int, str], length: int) -> str:
    """The text of a program of `length` bundles, all empty but the given ones."""
    lines = ["= control target key start", "LB: loop body", "= control target key end"]
    lines += [f"{hex(at) if at else 0:>6} LB: > {bundles.get(at, EMPTY)}" for at in range(length)]
    return "\n".join(lines)


def loop(first: int, step: int, limit: str) -> dict[int, str]:
    """A loop of the bundles 2 to 9; its branch is at 5."""
    return {
        0: f"{{ %s1_s0 = smov {first} /* copy for cssa */ }}",
        2: f"{{ %s2_s0 = sadd.s32 {step}, %s3_s0  ;;  %s3_s0 = sphi %s1_s0, %s2_s0 /* index */ }}",
        3: f"{{ %p4_p1 = scmp.ge.s32.totalorder %s2_s0, {limit} /* loop exit test */ }}",
        5: "{ %9 = sbr.rel (!%p4_p1) target bundleno = 2 (0x2), region = 7 }",
    }


def test_a_straight_program_takes_a_cycle_a_bundle() -> None:
    assert count_cycles(program({}, 7)) == KernelCycles(cycles=7, bundles=7)


@pytest.mark.parametrize(
    ("first", "step", "limit", "turns"), [(0, 1, 10, 10), (3, 1, 50, 47), (0, 4, 64, 16)]
)
def test_a_loop_is_multiplied_by_its_turns(first: int, step: int, limit: int, turns: int) -> None:
    # Two bundles before it, eight in it with the four after the branch, three after it.
    counted = count_cycles(program(loop(first, step, str(limit)), 13))
    assert counted == KernelCycles(cycles=2 + 8 * turns + 3, bundles=13)


def test_a_loop_may_carry_its_index_in_memory() -> None:
    # The place is used for something else in between, and the index waits in another.
    body = {
        0: "{ %s1_s0 = smov 2 }",
        1: "{ %5 = sst [smem:[#allocation7_spill]] %s1_s0 }",
        3: "{ %s3_s0 = sld [smem:[#allocation7_spill]]  ;;  %s8_s1 = smov 99 }",
        4: "{ %6 = sst [smem:[#allocation9_spill]] %s3_s0 }",
        5: "{ %7 = sst [smem:[#allocation7_spill]] %s8_s1 }",
        6: "{ %s4_s0 = sld [smem:[#allocation9_spill]] }",
        7: "{ %s2_s0 = sadd.s32 1, %s4_s0  ;;  %p4_p1 = scmp.ge.s32.totalorder %s2_s0, 22 }",
        8: "{ %8 = sst [smem:[#allocation7_spill]] %s2_s0 }",
        9: "{ %9 = sbr.rel (!%p4_p1) target bundleno = 2 (0x2), region = 7 }",
    }
    counted = count_cycles(program(body, 14))
    assert counted == KernelCycles(cycles=2 + 20 * 12, bundles=14)


def test_a_loop_of_unknown_turns_is_reported_and_counts_once() -> None:
    counted = count_cycles(program(loop(0, 1, "%s7_s7"), 13))
    assert counted == KernelCycles(cycles=13, bundles=13, unknown_loops=1)


def test_a_region_entered_in_some_turns_counts_in_those() -> None:
    # Of ten turns the region 12 to 20 is skipped in the first and the last.
    body = {
        0: "{ %s1_s0 = smov 0 }",
        1: "{ %s3_s0 = sphi %s1_s0, %s2_s0  ;;  %p5_p0 = scmp.ge.s32.totalorder %s3_s0, 1 }",
        2: "{ %p6_p0 = scmp.lt.s32.totalorder %s3_s0, 9  ;;  %p7_p0 = pnand %p5_p0, %p6_p0 }",
        7: "{ %2 = sbr.rel (%p7_p0) target bundleno = 20 (0x14), region = 3 }",
        20: "{ %s2_s0 = sadd.s32 1, %s3_s0  ;;  %p8_p0 = scmp.ge.s32.totalorder %s2_s0, 10 }",
        21: "{ %1 = sbr.rel (!%p8_p0) target bundleno = 1 (0x1), region = 2 }",
    }
    counted = count_cycles(program(body, 26))
    assert counted == KernelCycles(cycles=1 + 10 * (25 - 8) + 8 * 8, bundles=26)


def test_of_regions_that_data_decides_those_with_matrix_work_count() -> None:
    skip = "{ %1 = sbr.rel (%p9_p0) target bundleno = 12 (0xc), region = 3 }"
    product = "{ %v1_v0 = vmatmul.bf16.gmra.mxu0 %v0_v0 }"
    assert count_cycles(program({2: skip, 9: product}, 14)).cycles == 14
    assert count_cycles(program({2: skip, 13: product}, 14)).cycles == 14 - 5
    assert count_cycles(program({2: skip}, 14)).cycles == 14


def test_comments_over_several_lines_are_no_bundles() -> None:
    comment = "{ %1 = dma.hbm_to_vmem /* window\n  0x7 : not a bundle\nsizes: (1, 2) */ }"
    assert count_cycles(program({1: comment}, 3)) == KernelCycles(cycles=3, bundles=3)
