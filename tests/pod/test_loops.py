"""How often loops run, on loops cut from compilations for a TPU."""

import pytest

from sora_jax.pod.hlo import Module, parse_module
from sora_jax.pod.loops import Loop, loop_of

COUNTED = """
HloModule jit_f, is_scheduled=true

%body (wide.arg_tuple.0: (s32[], bf16[512,256], s32[])) -> (s32[], bf16[512,256], s32[]) {
  %constant.11..sunk = s32[]{:T(128)} constant(STEP)
  %wide.arg_tuple.0 = (s32[]{:T(128)}, bf16[512,256]{1,0}, s32[]{:T(128)}) parameter(0)
  %get-tuple-element.35 = s32[]{:T(128)} get-tuple-element(%wide.arg_tuple.0), index=0
  %copy.2 = s32[]{:T(128)S(6)} copy(%get-tuple-element.35)
  %add.2 = s32[]{:T(128)} MOVE(%copy.2, %constant.11..sunk)
  %get-tuple-element.36 = bf16[512,256]{1,0} get-tuple-element(%wide.arg_tuple.0), index=1
  %get-tuple-element.42 = s32[]{:T(128)} get-tuple-element(%wide.arg_tuple.0), index=2
  ROOT %tuple.11 = (s32[]{:T(128)}, bf16[512,256]{1,0}, s32[]{:T(128)}) tuple(%add.2, %get-tuple-element.36, %get-tuple-element.42)
}

%condition (wide.arg_tuple.3: (s32[], bf16[512,256], s32[])) -> pred[] {
  %constant.13 = s32[]{:T(128)} constant(7)
  %wide.arg_tuple.3 = (s32[]{:T(128)}, bf16[512,256]{1,0}, s32[]{:T(128)}) parameter(0)
  %get-tuple-element.15 = s32[]{:T(128)} get-tuple-element(%wide.arg_tuple.3), index=0
  %get-tuple-element.16 = s32[]{:T(128)} get-tuple-element(%wide.arg_tuple.3), index=2
  ROOT %lt.0 = pred[]{:T(512)} compare(%LEFT, %RIGHT), direction=DIRECTION
}

ENTRY %main.5 (x.1: bf16[512,256], n.1: s32[]) -> bf16[512,256] {
  %constant.7 = s32[]{:T(128)} constant(START)
  %constant.8 = s32[]{:T(128)} constant(11)
  %n.1 = s32[]{:T(128)} parameter(1)
  %x.1 = bf16[512,256]{1,0} parameter(0)
  %copy.10 = s32[]{:T(128)} copy(%constant.7)
  %tuple.9 = (s32[]{:T(128)}, bf16[512,256]{1,0}, s32[]{:T(128)}) tuple(%copy.10, %x.1, %LAST)
  %while = (s32[]{:T(128)}, bf16[512,256]{1,0}, s32[]{:T(128)}) while(%tuple.9), condition=%condition, body=%bodyEXTRA
  ROOT %while.7 = bf16[512,256]{1,0} get-tuple-element(%while), index=1
}
"""  # noqa: E501
COUNTER, LIMIT, CARRIED = "get-tuple-element.15", "constant.13", "get-tuple-element.16"


def loop(text: str) -> Loop:
    module = parse_module(text)
    return loop_of(module, module.entry, module.entry.instructions["while"])


def counted(
    left: str = COUNTER,
    direction: str = "LT",
    right: str = LIMIT,
    *,
    start: str = "0",
    step: str = "1",
    move: str = "add",
    last: str = "constant.8",
    extra: str = "",
) -> Loop:
    text = COUNTED.replace("START", start).replace("STEP", step).replace("MOVE", move)
    text = text.replace("DIRECTION", direction).replace("LEFT", left).replace("RIGHT", right)
    return loop(text.replace("LAST", last).replace("EXTRA", extra))


def test_the_limit_stands_in_the_condition() -> None:
    assert counted().trips == 7


def test_the_limit_stands_in_the_initial_state() -> None:
    assert counted(right=CARRIED).trips == 11


def test_a_limit_that_is_an_argument_of_the_program_is_not_known() -> None:
    assert counted(right=CARRIED, last="n.1").trips is None


@pytest.mark.parametrize(
    ("start", "step", "direction", "trips"),
    [
        ("3", "1", "LT", 4),
        ("0", "2", "LT", 4),
        ("1", "2", "LT", 3),
        ("0", "1", "LE", 8),
        ("0", "1", "NE", 7),
        ("1", "2", "NE", 3),
        ("0", "2", "NE", None),  # steps over its limit
        ("9", "1", "LT", 0),
        ("10", "-1", "GT", 3),
        ("10", "-1", "GE", 4),
        ("10", "-2", "GT", 2),
        ("0", "-1", "LT", None),  # runs away from its limit
        ("0", "0", "LT", None),
        ("0", "1", "EQ", None),
    ],
)
def test_trips_follow_from_start_step_and_comparison(
    start: str, step: str, direction: str, trips: int | None
) -> None:
    assert counted(direction=direction, start=start, step=step).trips == trips


def test_a_counter_may_stand_on_the_right_and_be_subtracted_from() -> None:
    assert counted(LIMIT, "GT", COUNTER).trips == 7
    assert counted(direction="GT", start="10", move="subtract").trips == 3


def test_a_counter_that_is_multiplied_is_not_known() -> None:
    assert counted(start="1", step="2", move="multiply").trips is None


def test_the_condition_may_look_at_what_the_counter_will_be() -> None:
    text = COUNTED.replace("START", "0").replace("STEP", "1").replace("MOVE", "add")
    text = text.replace("LAST", "constant.8").replace("EXTRA", "").replace("DIRECTION", "LT")
    text = text.replace("LEFT", "ahead").replace("RIGHT", LIMIT)
    ahead = f"  %ahead = s32[]{{:T(128)}} add(%{COUNTER}, %{CARRIED})\n  ROOT %lt.0"
    assert loop(text.replace("  ROOT %lt.0", ahead)).trips == 0
    behind = ahead.replace("add", "subtract")
    assert loop(text.replace("  ROOT %lt.0", behind)).trips == 7 + 11


def test_the_step_may_stand_in_the_initial_state() -> None:
    moved = "add(%copy.2, %get-tuple-element.42)"
    text = COUNTED.replace("MOVE(%copy.2, %constant.11..sunk)", moved).replace("START", "0")
    text = text.replace("STEP", "1").replace("LAST", "constant.8").replace("EXTRA", "")
    text = text.replace("DIRECTION", "LT").replace("LEFT", COUNTER).replace("RIGHT", LIMIT)
    assert loop(text.replace("constant(11)", "constant(3)")).trips == 3


def test_a_counter_that_follows_another_element_is_not_known() -> None:
    followed = "add(%get-tuple-element.42, %constant.11..sunk)"
    text = COUNTED.replace("MOVE(%copy.2, %constant.11..sunk)", followed).replace("START", "0")
    text = text.replace("STEP", "1").replace("LAST", "constant.8").replace("EXTRA", "")
    text = text.replace("DIRECTION", "LT").replace("LEFT", COUNTER).replace("RIGHT", LIMIT)
    carried = "%get-tuple-element.36, %get-tuple-element.42)"
    assert loop(text.replace(carried, "%get-tuple-element.36, %add.2)")).trips is None


def test_a_count_that_the_compiler_prints_is_taken() -> None:
    printed = ', backend_config={"known_trip_count":{"n":"23"},"flag_configs":[]}'
    assert counted(right=CARRIED, last="n.1", extra=printed).trips == 23


def test_the_state_says_what_every_iteration_sees_alike() -> None:
    assert counted().state == (None, None, 11)


def test_arithmetic_inside_fusions_is_followed() -> None:
    fused = """
%fused_add (param_0: s32[], param_1: s32[]) -> s32[] {
  %param_0 = s32[]{:T(128)} parameter(0)
  %param_1 = s32[]{:T(128)} parameter(1)
  ROOT %add = s32[]{:T(128)} add(%param_0, %param_1)
}

%fused_compare (param_0: s32[]) -> pred[] {
  %param_0 = s32[]{:T(128)} parameter(0)
  %limit = s32[]{:T(128)} constant(9)
  ROOT %compare = pred[]{:T(512)} compare(%limit, %param_0), direction=GE
}
"""
    text = COUNTED.replace("%body (", fused + "\n%body (").replace("START", "1")
    text = text.replace("STEP", "2").replace("LAST", "constant.8").replace("EXTRA", "")
    text = text.replace(
        "MOVE(%copy.2, %constant.11..sunk)",
        "fusion(%copy.2, %constant.11..sunk), kind=kLoop, calls=%fused_add",
    )
    text = text.replace(
        "compare(%LEFT, %RIGHT), direction=DIRECTION",
        f"fusion(%{COUNTER}), kind=kLoop, calls=%fused_compare",
    )
    assert loop(text).trips == 5


def test_a_fusion_may_have_several_results() -> None:
    fused = """
%fused_step (param_0: s32[]) -> (s32[], s32[]) {
  %param_0 = s32[]{:T(128)} parameter(0)
  %two = s32[]{:T(128)} constant(2)
  %sum = s32[]{:T(128)} add(%param_0, %two)
  ROOT %both = (s32[]{:T(128)}, s32[]{:T(128)}) tuple(%two, %sum)
}
"""
    step = "  %fusion = (s32[]{:T(128)}, s32[]{:T(128)}) fusion(%copy.2), calls=%fused_step\n"
    text = COUNTED.replace("%body (", fused + "\n%body (").replace("START", "0")
    text = text.replace("LAST", "constant.8").replace("EXTRA", "").replace("DIRECTION", "LT")
    text = text.replace("LEFT", COUNTER).replace("RIGHT", LIMIT).replace("STEP", "1")
    text = text.replace("  %add.2 =", step + "  %add.2 =")
    text = text.replace("MOVE(%copy.2, %constant.11..sunk)", "get-tuple-element(%fusion), index=1")
    assert loop(text).trips == 4


NESTED = """
HloModule jit_nested, is_scheduled=true

%inner_body (wide.arg_tuple.1: (s32[], s32[])) -> (s32[], s32[]) {
  %one = s32[]{:T(128)} constant(1)
  %wide.arg_tuple.1 = (s32[]{:T(128)}, s32[]{:T(128)}) parameter(0)
  %get-tuple-element.74 = s32[]{:T(128)} get-tuple-element(%wide.arg_tuple.1), index=0
  %get-tuple-element.75 = s32[]{:T(128)} get-tuple-element(%wide.arg_tuple.1), index=1
  %add.5 = s32[]{:T(128)} add(%get-tuple-element.74, %one)
  ROOT %tuple.24 = (s32[]{:T(128)}, s32[]{:T(128)}) tuple(%add.5, %get-tuple-element.75)
}

%inner_condition (wide.arg_tuple.4: (s32[], s32[])) -> pred[] {
  %wide.arg_tuple.4 = (s32[]{:T(128)}, s32[]{:T(128)}) parameter(0)
  %get-tuple-element.30 = s32[]{:T(128)} get-tuple-element(%wide.arg_tuple.4), index=0
  %get-tuple-element.31 = s32[]{:T(128)} get-tuple-element(%wide.arg_tuple.4), index=1
  ROOT %lt.0 = pred[]{:T(512)} compare(%get-tuple-element.30, %get-tuple-element.31), direction=LT
}

%outer_body (wide.arg_tuple.0: (s32[], s32[])) -> (s32[], s32[]) {
  %zero = s32[]{:T(128)} constant(0)
  %one.1 = s32[]{:T(128)} constant(1)
  %wide.arg_tuple.0 = (s32[]{:T(128)}, s32[]{:T(128)}) parameter(0)
  %get-tuple-element.88 = s32[]{:T(128)} get-tuple-element(%wide.arg_tuple.0), index=0
  %get-tuple-element.97 = s32[]{:T(128)} get-tuple-element(%wide.arg_tuple.0), index=1
  %add.4 = s32[]{:T(128)} add(%get-tuple-element.88, %one.1)
  %tuple.22 = (s32[]{:T(128)}, s32[]{:T(128)}) tuple(%zero, %get-tuple-element.97)
  %while.11 = (s32[]{:T(128)}, s32[]{:T(128)}) while(%tuple.22), condition=%inner_condition, body=%inner_body
  %get-tuple-element.99 = s32[]{:T(128)} get-tuple-element(%while.11), index=1
  ROOT %tuple.27 = (s32[]{:T(128)}, s32[]{:T(128)}) tuple(%add.4, %get-tuple-element.99)
}

%outer_condition (wide.arg_tuple.7: (s32[], s32[])) -> pred[] {
  %constant.24 = s32[]{:T(128)} constant(5)
  %wide.arg_tuple.7 = (s32[]{:T(128)}, s32[]{:T(128)}) parameter(0)
  %get-tuple-element.43 = s32[]{:T(128)} get-tuple-element(%wide.arg_tuple.7), index=0
  ROOT %lt.2 = pred[]{:T(512)} compare(%get-tuple-element.43, %constant.24), direction=LT
}

ENTRY %main.8 (n: s32[]) -> s32[] {
  %zero.1 = s32[]{:T(128)} constant(0)
  %six = s32[]{:T(128)} constant(6)
  %tuple.25 = (s32[]{:T(128)}, s32[]{:T(128)}) tuple(%zero.1, %six)
  %while = (s32[]{:T(128)}, s32[]{:T(128)}) while(%tuple.25), condition=%outer_condition, body=%outer_body
  ROOT %while.15 = s32[]{:T(128)} get-tuple-element(%while), index=0
}
"""  # noqa: E501


def inner_loop(module: Module, outer: Loop) -> Loop:
    body = module.computations["outer_body"]
    return loop_of(module, body, body.instructions["while.11"], (outer.state,))


def test_the_limit_of_an_inner_loop_may_come_from_outside_both() -> None:
    outer = loop(NESTED)
    assert outer.trips == 5
    # The outer loop takes the limit from the inner one's result, which passes it on unchanged.
    assert outer.state == (None, 6)
    assert inner_loop(parse_module(NESTED), outer).trips == 6


def test_nothing_is_known_of_an_inner_loop_whose_limit_changes() -> None:
    text = NESTED.replace("tuple(%add.4, %get-tuple-element.99)", "tuple(%add.4, %add.4)")
    outer = loop(text)
    assert outer.trips == 5
    assert inner_loop(parse_module(text), outer).trips is None
