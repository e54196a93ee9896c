"""Bytes of operations cut from programs for a TPU; no compiler is needed."""

from sora_jax.pod.hlo import parse_module
from sora_jax.pod.traffic import moved_bytes


def moved(line: str, *computations: str, parameters: str = "") -> int:
    """Of the operation %one, which has %x, bf16[8,128], and %many, bf16[4,8,128], to work on."""
    text = f"""ENTRY %main (x: bf16[8,128], many: bf16[4,8,128], i: s32[]) -> bf16[8,128] {{
  %x = bf16[8,128]{{1,0}} parameter(0)
  %many = bf16[4,8,128]{{2,1,0}} parameter(1)
  %i = s32[] parameter(2)
{parameters}  ROOT %one = {line}
}}
"""
    module = parse_module("\n\n".join(("HloModule jit_f", *computations, text)))
    return moved_bytes(module, module.entry, module.entry.root)


ONE = 8 * 128 * 2


def test_operands_and_result_count_once() -> None:
    assert moved("f32[8,128]{1,0} convert(%x)") == ONE + 2 * ONE
    assert moved("bf16[8,128]{1,0} add(%x, %x)") == 3 * ONE


def test_of_an_array_that_is_sliced_the_slice_counts() -> None:
    slicing = """%slicing (m: bf16[4,8,128], j: s32[], y: bf16[8,128]) -> bf16[8,128] {
  %m = bf16[4,8,128]{2,1,0} parameter(0)
  %j = s32[] parameter(1)
  %y = bf16[8,128]{1,0} parameter(2)
  %zero = s32[] constant(0)
  %part = bf16[1,8,128]{2,1,0} dynamic-slice(%m, %j, %zero, %zero), dynamic_slice_sizes={1,8,128}
  %flat = bf16[8,128]{1,0} bitcast(%part)
  ROOT %sum = bf16[8,128]{1,0} add(%flat, %y)
}"""
    line = "bf16[8,128]{1,0} fusion(%many, %i, %x), kind=kLoop, calls=%slicing"
    assert moved(line, slicing) == ONE + 4 + ONE + ONE


def test_of_an_array_that_is_updated_in_place_the_update_counts() -> None:
    updating = """%updating (m: bf16[4,8,128], y: bf16[8,128], j: s32[]) -> bf16[4,8,128] {
  %m = bf16[4,8,128]{2,1,0} parameter(0)
  %y = bf16[8,128]{1,0} parameter(1)
  %j = s32[] parameter(2)
  %zero = s32[] constant(0)
  %wide = bf16[1,8,128]{2,1,0} bitcast(%y)
  ROOT %new = bf16[4,8,128]{2,1,0} dynamic-update-slice(%m, %wide, %j, %zero, %zero)
}"""
    line = "bf16[4,8,128]{2,1,0} fusion(%many, %x, %i), kind=kLoop, calls=%updating"
    assert moved(line, updating) == ONE + 4 + ONE


def test_fusions_inside_fusions_and_several_results() -> None:
    inner = """%inner (m: bf16[4,8,128]) -> bf16[1,8,128] {
  %m = bf16[4,8,128]{2,1,0} parameter(0)
  ROOT %part = bf16[1,8,128]{2,1,0} slice(%m), slice={[0:1], [0:8], [0:128]}
}"""
    outer = """%outer (n: bf16[4,8,128]) -> (bf16[1,8,128], f32[1,8,128]) {
  %n = bf16[4,8,128]{2,1,0} parameter(0)
  %seen = bf16[4,8,128]{2,1,0} bitcast(%n)
  %first = bf16[1,8,128]{2,1,0} fusion(%seen), kind=kLoop, calls=%inner
  %wide = f32[1,8,128]{2,1,0} convert(%first)
  ROOT %both = (bf16[1,8,128]{2,1,0}, f32[1,8,128]{2,1,0}) tuple(%first, %wide)
}"""
    result = "(bf16[1,8,128]{2,1,0}, f32[1,8,128]{2,1,0})"
    assert moved(f"{result} fusion(%many), kind=kLoop, calls=%outer", inner, outer) == 4 * ONE


def test_what_is_read_twice_counts_once_as_a_whole() -> None:
    twice = """%twice (m: bf16[8,128]) -> bf16[8,128] {
  %m = bf16[8,128]{1,0} parameter(0)
  %half = bf16[8,128]{1,0} negate(%m)
  ROOT %sum = bf16[8,128]{1,0} add(%half, %m)
}"""
    assert moved("bf16[8,128]{1,0} fusion(%x), kind=kLoop, calls=%twice", twice) == 2 * ONE


def test_arrays_of_the_host_are_left_out() -> None:
    assert moved("bf16[8,128]{1,0:S(5)} copy(%x)") == ONE
