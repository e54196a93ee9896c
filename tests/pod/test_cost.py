"""Costs of program texts that are cut from compilations for a TPU; no compiler is needed."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sora_jax.pod.chips import GENERATIONS
from sora_jax.pod.cost import CollectiveUse, Cost, cost_of

CHIP = GENERATIONS["v5p"]


def mesh(slices: int = 1) -> Any:
    """Four chips in a square, `slices` times."""
    devices = [
        SimpleNamespace(id=(at + 1) * 100_000 + i, coords=(i % 2, i // 2, 0), slice_index=at)
        for at in range(slices)
        for i in range(4)
    ]
    array = np.array(devices, object).reshape(slices, 2, 2)
    return SimpleNamespace(devices=array, axis_names=("replica", "fsdp", "context"))


def cycles(count: int) -> str:
    return f'backend_config={{"window_config":{{"estimated_cycles":"{count}"}}}}'


def program(body: str, *computations: str, slices: int = 1) -> Cost:
    """Cost of an entry with parameters %x, bf16[8,256], and %w, bf16[256,128]."""
    header = "HloModule jit_f, is_scheduled=true, num_partitions=4"
    entry = f"""ENTRY %main (x: bf16[8,256], w: bf16[256,128]) -> bf16[8,128] {{
  %x = bf16[8,256]{{1,0}} parameter(0)
  %w = bf16[256,128]{{1,0}} parameter(1)
{body.strip(chr(10))}
}}
"""
    return cost_of("\n\n".join((header, *computations, entry)), mesh(slices), CHIP)


PRODUCT = """%product (l: bf16[8,256], r: bf16[256,128]) -> bf16[8,128] {
  %l = bf16[8,256]{1,0} parameter(0)
  %r = bf16[256,128]{1,0} parameter(1)
  %half = bf16[8,128]{1,0} fusion(%l, %r), kind=kOutput, calls=%inner
  ROOT %tanh = bf16[8,128]{1,0} tanh(%half)
}"""
INNER = """%inner (l: bf16[8,256], r: bf16[256,128]) -> bf16[8,128] {
  %l = bf16[8,256]{1,0} parameter(0)
  %r = bf16[256,128]{1,0} parameter(1)
  ROOT %convolution = bf16[8,128]{1,0} convolution(%l, %r), dim_labels=bf_io->bf
}"""
FUSED = f"  %one = bf16[8,128]{{1,0}} fusion(%x, %w), kind=kOutput, calls=%product, {cycles(700)}"
FLOPS = 2 * 8 * 256 * 128


def test_cycles_are_told_apart_by_whether_a_fusion_holds_a_product() -> None:
    copied = f"  %two = bf16[8,256]{{1,0}} copy(%x), {cycles(30)}"
    found = program(f"{FUSED}\n{copied}", INNER, PRODUCT)
    assert (found.matmul_flops, found.matmul_cycles, found.other_cycles) == (FLOPS, 700, 30)


def test_what_holds_no_product_takes_the_compilers_cycles_or_what_memory_takes() -> None:
    memory = 2 * 8 * 256 * 2 / CHIP.hbm_bandwidth
    for count, seconds in ((1, 1 / CHIP.clock_hz), (90_000, memory)):
        found = program(f"  %two = bf16[8,256]{{1,0}} copy(%x), {cycles(count)}")
        assert (found.other_cycles, found.other_seconds) == (count, pytest.approx(seconds))


def test_of_a_conditional_the_longest_branch_counts() -> None:
    def branch(name: str, count: int) -> str:
        return f"""%{name} (l: bf16[8,256]) -> bf16[8,256] {{
  %l = bf16[8,256]{{1,0}} parameter(0)
  ROOT %copy = bf16[8,256]{{1,0}} copy(%l), {cycles(count)}
}}"""

    several = "conditional(%i, %x, %x, %x), branch_computations={%a, %b, %c}"
    two = "conditional(%i, %x, %x), true_computation=%a, false_computation=%b"
    branches = branch("a", 1), branch("b", 4), branch("c", 2)
    for form in (several, two):
        found = program(f"  %y = bf16[8,256]{{1,0}} {form}", *branches)
        assert found.other_cycles == 4


LOOP = f"""%body (s: (s32[], bf16[8,256])) -> (s32[], bf16[8,256]) {{
  %s = (s32[], bf16[8,256]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %one.1 = s32[] constant(1)
  %next = s32[] add(%i, %one.1)
  %value = bf16[8,256]{{1,0}} get-tuple-element(%s), index=1
  %copy = bf16[8,256]{{1,0}} copy(%value), {cycles(11)}
  %sum = bf16[8,256]{{1,0}} all-reduce(%copy), replica_groups={{{{0,1}},{{2,3}}}}, to_apply=%add
  ROOT %after = (s32[], bf16[8,256]{{1,0}}) tuple(%next, %sum)
}}"""
CONDITION = """%condition (s: (s32[], bf16[8,256])) -> pred[] {
  %s = (s32[], bf16[8,256]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %limit = s32[] LIMIT
  ROOT %less = pred[] compare(%i, %limit), direction=LT
}"""


@pytest.mark.parametrize(
    ("limit", "trips", "unknown"),
    [("constant(6)", 6, ()), ("custom-call()", 1, ("while.3",)), ("constant(0)", 0, ())],
)
def test_a_loop_is_counted_as_often_as_it_runs_and_once_if_that_is_unknown(
    limit: str, trips: int, unknown: tuple[str, ...]
) -> None:
    body = """
  %zero = s32[] constant(0)
  %start = (s32[], bf16[8,256]{1,0}) tuple(%zero, %x)
  %while.3 = (s32[], bf16[8,256]{1,0}) while(%start), condition=%condition, body=%body"""
    found = program(body, LOOP, CONDITION.replace("LIMIT", limit))
    assert found.other_cycles == 11 * trips
    assert [use.calls for use in found.collectives] == [trips] * (trips > 0)
    assert found.unknown_loops == unknown


def test_an_inner_loop_may_take_its_limit_from_outside_both() -> None:
    def body(name: str, work: str) -> str:
        return f"""%{name} (s: (s32[], s32[], bf16[8,256])) -> (s32[], s32[], bf16[8,256]) {{
  %s = (s32[], s32[], bf16[8,256]{{1,0}}) parameter(0)
  %i = s32[] get-tuple-element(%s), index=0
  %limit = s32[] get-tuple-element(%s), index=1
  %value = bf16[8,256]{{1,0}} get-tuple-element(%s), index=2
  %zero = s32[] constant(0)
  %one.1 = s32[] constant(1)
  %next = s32[] add(%i, %one.1)
  {work}
  ROOT %after = (s32[], s32[], bf16[8,256]{{1,0}}) tuple(%next, %limit, %value)
}}"""

    state = "(s32[], s32[], bf16[8,256]{1,0})"
    inner = body("inner", f"%copy = bf16[8,256]{{1,0}} copy(%value), {cycles(11)}")
    started = f"%start = {state} tuple(%zero, %limit, %value)"
    again = f"%while.1 = {state} while(%start), condition=%condition, body=%inner"
    condition = CONDITION.replace("LIMIT", "get-tuple-element(%s), index=1")
    begin = f"""
  %zero = s32[] constant(0)
  %limit = s32[] constant(6)
  %start = {state} tuple(%zero, %limit, %x)
  %while.2 = {state} while(%start), condition=%condition, body=%outer"""
    found = program(begin, inner, body("outer", f"{started}\n  {again}"), condition)
    assert (found.other_cycles, found.unknown_loops) == (6 * 6 * 11, ())


def only(found: Cost) -> CollectiveUse:
    (use,) = found.collectives
    return use


STARTED = """  %start = (bf16[8,256], bf16[8,256]) collective-permute-start(%x), source_target_pairs={{0,1}}
MEANWHILE
  %done = bf16[8,256]{1,0} collective-permute-done(%start)
"""  # noqa: E501


@pytest.mark.parametrize(
    ("meanwhile", "hidden"),
    [("", False), ("  %b = bf16[8,256]{1,0} bitcast(%x)", False), (FUSED, True)],
)
def test_a_started_collective_is_hidden_if_there_is_arithmetic_before_its_end(
    meanwhile: str, hidden: bool
) -> None:
    found = program(STARTED.replace("MEANWHILE", meanwhile), INNER, PRODUCT)
    assert (only(found).kind, only(found).hidden) == ("collective-permute", hidden)


def test_a_collective_that_is_not_started_early_is_not_hidden() -> None:
    gather = "  %g = bf16[8,512]{1,0} all-gather(%x), replica_groups={{0,1},{2,3}}, dimensions={1}"
    use = only(program(f"{gather}\n{FUSED}", INNER, PRODUCT))
    assert (use.kind, use.axes, use.hidden) == ("all-gather", ("context",), False)
    assert use.bytes == 8 * 512 * 2


def test_steps_of_one_gather_that_are_fused_with_products_are_one_hidden_gather() -> None:
    def step(name: str, product: str) -> str:
        return f"""%{name} (p: bf16[8,256], l: bf16[8,256], r: bf16[256,128]) -> bf16[8,512] {{
  %p = bf16[8,256]{{1,0}} parameter(0)
  %l = bf16[8,256]{{1,0}} parameter(1)
  %r = bf16[256,128]{{1,0}} parameter(2)
  {product}
  ROOT %g = bf16[8,512]{{1,0}} all-gather(%p), channel_id=8, replica_groups={{{{0,2}},{{1,3}}}}, dimensions={{1}}, backend_config={{"async_collective_fusion_config":{{"flag_start":"2"}}}}
}}"""  # noqa: E501

    product = "%c = bf16[8,128]{1,0} convolution(%l, %r), dim_labels=bf_io->bf"
    body = f"""
  %first = bf16[8,512]{{1,0}} fusion(%x, %x, %w), kind=kCustom, calls=%a
  %second = bf16[8,512]{{1,0}} fusion(%x, %x, %w), kind=kOutput, calls=%b, {cycles(70)}
  %third = bf16[8,512]{{1,0}} fusion(%x, %x, %w), kind=kCustom, calls=%c"""
    found = program(body, step("a", ""), step("b", product), step("c", ""))
    use = only(found)
    assert (use.calls, use.hidden, use.axes) == (1, True, ("fsdp",))
    assert use.bytes == 8 * 512 * 2
    assert (found.matmul_flops, found.matmul_cycles) == (FLOPS, 70)


SUM_AND_SLICE = """%all-reduce-scatter (input: bf16[8,256]) -> bf16[4,256] {
  %input = bf16[8,256]{1,0} parameter(0)
  %sum = bf16[8,256]{1,0} all-reduce(%input), replica_groups={{0,1},{2,3}}, to_apply=%add
  %zero = s32[] constant(0)
  ROOT %part = bf16[4,256]{1,0} dynamic-slice(%sum, %zero, %zero), dynamic_slice_sizes={4,256}
}"""


def test_a_sum_of_which_a_part_is_kept_is_a_reduce_scatter() -> None:
    body = "  %s = bf16[4,256]{1,0} fusion(%x), kind=kCustom, calls=%all-reduce-scatter"
    use = only(program(body, SUM_AND_SLICE))
    assert (use.kind, use.axes, use.hidden) == ("reduce-scatter", ("context",), False)
    assert (use.bytes, use.sent_bytes) == (8 * 256 * 2, 8 * 256)


OFFLOADED = """%called (p: bf16[8,256]) -> bf16[8,512] {
  %p = bf16[8,256]{1,0} parameter(0)
  ROOT %g = bf16[8,512]{1,0} all-gather(%p), replica_groups={{0,1},{2,3}}, dimensions={1}
}, execution_thread="sparsecore\""""
CALL = """  %start = (s32[1]) call-start(), async_execution_thread="sparsecore", to_apply=%called
BEFORE
  %update = (bf16[8,256], bf16[8,512]) call-update(%start, %x)
AFTER
  %done = bf16[8,512]{1,0} call-done(%update)"""


@pytest.mark.parametrize(
    ("before", "after", "hidden"), [("", FUSED, True), (FUSED, "", False), ("", "", False)]
)
def test_a_collective_of_a_sparse_core_runs_from_when_it_has_its_data(
    before: str, after: str, hidden: bool
) -> None:
    body = CALL.replace("BEFORE", before).replace("AFTER", after)
    use = only(program(body, OFFLOADED, INNER, PRODUCT))
    assert (use.kind, use.bytes, use.hidden) == ("all-gather", 8 * 512 * 2, hidden)


NETWORK = """
  %token = token[] after-all()
  %send = (bf16[8,256], u32[], token[]) send(%x, %token), is_host_transfer=true, frontend_attributes={KEY}
  %recv = (bf16[8,256], u32[], token[]) recv(%token), is_host_transfer=true, frontend_attributes={KEY}
  %send-done = token[] send-done(%send)
MEANWHILE
  %recv-done = (bf16[8,256], token[]) recv-done(%recv)"""  # noqa: E501
KEY = ",".join(
    (
        '_xla_host_transfer_rendezvous="all-reduce.5_0"',
        '_xla_megascale_target="{1,2}x{0:3}"',
        '_xla_megascale_transfer_type="ALL_REDUCE"',
    )
)


@pytest.mark.parametrize(("meanwhile", "hidden"), [("", False), (FUSED, True)])
def test_a_sum_over_slices_is_a_send_and_ends_when_the_answer_is_there(
    meanwhile: str, hidden: bool
) -> None:
    text = NETWORK.replace("KEY", KEY).replace("MEANWHILE", meanwhile)
    use = only(program(text, INNER, PRODUCT, slices=2))
    assert (use.kind, use.axes, use.hidden) == ("all-reduce", ("replica",), hidden)
    assert use.bytes == 8 * 256 * 2
    assert use.seconds == pytest.approx(8 * 256 * 2 / CHIP.dcn_bandwidth)


HOST, DEVICE, WHOLE = "bf16[8,256]{1,0:S(5)}", "bf16[8,256]{1,0}", "bf16[7,8,256]{2,1,0:S(5)}"


@pytest.mark.parametrize(
    "body",
    [
        f"  %s = ({HOST}, {DEVICE}, u32[]) copy-start(%x)",
        f"  %s = {HOST} copy(%x)",
        f"  %h = {HOST} custom-call()\n  %s = ({DEVICE}, {HOST}, u32[]) copy-start(%h)",
        f"  %h = {WHOLE} custom-call()\n  %s = (({WHOLE}, s32[]), {DEVICE}, u32[])"
        " dynamic-slice-start(%h, %zero), dynamic_slice_sizes={1,8,256}",
        f"  %h = {WHOLE} custom-call()\n  %s = (({WHOLE}, {DEVICE}, s32[]), {WHOLE}, u32[])"
        " dynamic-update-slice-start(%h, %x, %zero)",
    ],
)
def test_what_goes_to_or_comes_from_the_host_is_counted_once(body: str) -> None:
    zero = "  %zero = s32[] constant(0)\n"
    done = "\n  %d = bf16[8,256]{1,0} copy-done(%s)"
    assert program(zero + body + done).host_bytes == 8 * 256 * 2


@pytest.mark.parametrize(
    "body",
    [
        "  %s = (bf16[8,256]{1,0:S(1)}, bf16[8,256]{1,0}, u32[]) copy-start(%x)",
        f"  %h = {HOST} custom-call()\n  %s = ({HOST}, {HOST}, u32[]) copy-start(%h)",
    ],
)
def test_copies_that_stay_on_one_side_are_not(body: str) -> None:
    assert program(body).host_bytes == 0


def test_uses_of_one_kind_are_added_up_and_those_of_others_are_not() -> None:
    body = """
  %a = bf16[8,256]{1,0} all-reduce(%x), replica_groups={{0,1},{2,3}}, to_apply=%add
  %b = bf16[256,128]{1,0} all-reduce(%w), replica_groups={{0,1},{2,3}}, to_apply=%add
  %c = bf16[8,256]{1,0} all-reduce(%x), replica_groups={{0,2},{1,3}}, to_apply=%add"""
    first, second = program(body).collectives
    assert (first.axes, first.calls, first.bytes) == (("context",), 2, (8 * 256 + 256 * 128) * 2)
    assert (second.axes, second.calls, second.bytes) == (("fsdp",), 1, 8 * 256 * 2)
    assert first.seconds == pytest.approx(first.sent_bytes / CHIP.link_bandwidth)
