"""Parsing optimized HLO text: texts here are cut from compilations for a TPU."""

import pytest

from sora_jax.pod.hlo import HBM, HOST, VMEM, Shape, parse_module

SCAN = """
HloModule jit_f, is_scheduled=true, entry_computation_layout={(f32[8]{0})->f32[8]{0}}, num_partitions=4, frontend_attributes={a="0"}

FileNames
1 "model.py"

StackFrames
1 {file_location_id=1 parent_frame_id=1}


%called_computation (param_0.63: bf16[1,512], param_1.61: token[]) -> bf16[1,2048] {
  %param_1.61 = token[] parameter(1)
  %param_0.63 = bf16[1,512]{1,0:T(16,128)(2,1)} parameter(0)
  ROOT %all-gather.12 = bf16[1,2048]{1,0:T(16,128)(2,1)} all-gather(%param_0.63), channel_id=6, replica_groups=mesh['axis_0'=4,'axis_1'=1], device_ids=([4,1]T(1,0)) {'axis_0'}, dimensions={1}
}, execution_thread="sparsecore"

ENTRY %main.3_spmd (param.2: bf16[1024,2048], param.3: s8[7,3]) -> (s32[], bf16[1024,2048]) {
  %constant.8.clone = s32[]{:T(128)} constant(-3), metadata={op_name="a, b"}
  %param.3 = s8[7,<=3]{1,0:T(8,128)(4,1)S(5)} parameter(1), sharding={devices=[1,2,1,2]<=[2,2]T(1,0) last_tile_dim_replicate}
  %param.2 = bf16[1024,2048]{1,0:T(8,128)(2,1)} parameter(0)
  %copy-start = (bf16[1024,2048]{1,0:T(8,128)(2,1)S(1)}, bf16[1024,2048]{1,0:T(8,128)(2,1)}, u32[]{:S(2)}) copy-start(%param.2)
  %copy-done = bf16[1024,2048]{1,0:T(8,128)(2,1)S(1)} copy-done(%copy-start)
  %send = (bf16[1,512], u32[], token[]) send(%copy-done, /*index=1*/%param.3), channel_id=2, is_host_transfer=true, frontend_attributes={_xla_host_transfer_rendezvous="sum_0",_xla_megascale_target={{100000->200000},{100001->200001}}}
  ROOT %tuple.14 = (s32[]{:T(128)}, /*index=1*/bf16[1024,2048]{1,0:T(8,128)(2,1)}) tuple(%constant.8.clone, /*index=1*/%copy-done), control-predecessors={%send}
}
"""  # noqa: E501

# What a kernel says of itself has line breaks of its own, inside brackets and inside strings.
KERNEL = """
HloModule jit_f, is_scheduled=true

ENTRY %main (q.1: bf16[2,4,1024,128]) -> f32[2,4] {
  %q.1 = bf16[2,4,1024,128]{3,2,1,0:T(8,128)(2,1)} parameter(0)
  %splash_fwd.5 = (f32[2,512]{1,0}, bf16[2,4,1024,128]{3,2,1,0}) custom-call(%q.1, %q.1), custom_call_target="tpu_custom_call", frontend_attributes={kernel_metadata={
"xprof_metadata":"{\\"block_q\\": 512, \\"odd\\": \\"}){\\"}"
}}, metadata={op_name="jit(f)/splash_fwd"}, backend_config={"custom_call_config":{"body":"module {
  %0 = arith.constant
}
"}}
  ROOT %scores = f32[2,512]{1,0} get-tuple-element(%splash_fwd.5), index=0
}
"""  # noqa: E501


def test_a_module_knows_its_entry_its_computations_and_its_partitions() -> None:
    module = parse_module(SCAN)
    assert list(module.computations) == ["called_computation", "main.3_spmd"]
    assert module.entry.name == "main.3_spmd"
    assert module.partitions == 4
    assert parse_module(KERNEL).partitions == 1


def test_instructions_are_in_the_order_of_the_schedule_and_the_root_is_known() -> None:
    entry = parse_module(SCAN).entry
    assert list(entry.instructions)[-3:] == ["copy-done", "send", "tuple.14"]
    assert entry.root.opcode == "tuple"


def test_shapes_have_dtype_sizes_and_memory_space() -> None:
    instructions = parse_module(SCAN).entry.instructions
    assert instructions["copy-start"].shapes == (
        Shape("bf16", (1024, 2048), VMEM),
        Shape("bf16", (1024, 2048), HBM),
        Shape("u32", (), 2),
    )
    assert instructions["param.3"].shapes == (Shape("s8", (7, 3), HOST),)
    assert instructions["tuple.14"].shapes[1].dims == (1024, 2048)


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        (Shape("bf16", (3, 5)), 30),
        (Shape("pred", (7,)), 7),
        (Shape("f8e4m3fn", (7,)), 7),
        (Shape("s4", (3,)), 2),
        (Shape("c64", (2,)), 16),
        (Shape("f32", ()), 4),
        (Shape("token", ()), 0),
    ],
)
def test_bytes_of_a_shape_follow_from_its_dtype(shape: Shape, size: int) -> None:
    assert shape.bytes == size


def test_operands_and_literals_are_told_apart() -> None:
    instructions = parse_module(SCAN).entry.instructions
    assert instructions["tuple.14"].operands == ("constant.8.clone", "copy-done")
    assert instructions["constant.8.clone"].operands == ()
    assert instructions["constant.8.clone"].literal == "-3"
    assert instructions["param.3"].literal == "1"


def test_operands_may_be_printed_with_their_shapes_and_without_a_percent_sign() -> None:
    text = "ENTRY main (a: f32[2]) -> f32[2] {\n  a = f32[2]{0} parameter(0)\n"
    text += "  ROOT b = f32[2]{0} add(f32[2]{0} a, f32[2]{0} a)\n}\n"
    entry = parse_module(text).entry
    assert entry.root.operands == ("a", "a")
    assert entry.operand_shapes(entry.root) == ((Shape("f32", (2,)),),) * 2


def test_attributes_are_split_outside_brackets_and_strings() -> None:
    module = parse_module(SCAN)
    gather = module.computations["called_computation"].root
    assert gather.attributes["replica_groups"] == "mesh['axis_0'=4,'axis_1'=1]"
    assert gather.attributes["device_ids"] == "([4,1]T(1,0)) {'axis_0'}"
    assert module.entry.instructions["constant.8.clone"].attributes == {
        "metadata": '{op_name="a, b"}'
    }
    assert module.entry.root.called("control-predecessors") == ("send",)


def test_frontend_attributes_are_attributes_of_their_own() -> None:
    send = parse_module(SCAN).entry.instructions["send"]
    assert send.frontend("_xla_host_transfer_rendezvous") == "sum_0"
    assert send.frontend("_xla_megascale_target") == "{{100000->200000},{100001->200001}}"
    assert send.frontend("missing") == ""


def test_a_kernel_of_several_lines_is_one_instruction() -> None:
    entry = parse_module(KERNEL).entry
    assert list(entry.instructions) == ["q.1", "splash_fwd.5", "scores"]
    kernel = entry.instructions["splash_fwd.5"]
    assert kernel.operands == ("q.1", "q.1")
    assert kernel.attributes["metadata"] == '{op_name="jit(f)/splash_fwd"}'
    assert "arith.constant" in kernel.attributes["backend_config"]


def test_a_text_without_an_entry_is_refused() -> None:
    with pytest.raises(ValueError, match="no ENTRY"):
        parse_module("module @jit_f { func.func public @main() }")
