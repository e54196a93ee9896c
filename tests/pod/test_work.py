"""FLOPs of matrix products as compilers print them, and of attention kernels by their shapes."""

import pytest

from sora_jax.pod.hlo import Shape, parse_module
from sora_jax.pod.work import (
    attention_flops,
    estimated_cycles,
    kernel_name,
    matmul_flops,
    stated_flops,
)


def flops(out: str, left: str, right: str, attributes: str, opcode: str = "convolution") -> int:
    text = f"""ENTRY %main (l: {left}, r: {right}) -> {out} {{
  %l = {left} parameter(0)
  %r = {right} parameter(1)
  ROOT %product = {out} {opcode}(%l, %r), {attributes}
}}
"""
    entry = parse_module(text).entry
    return matmul_flops(entry.root, entry)


def test_a_plain_product() -> None:
    plain = flops("bf16[512,128]", "bf16[512,256]", "bf16[256,128]", "dim_labels=bf_io->bf")
    assert plain == 2 * 512 * 256 * 128


def test_a_dot() -> None:
    attributes = "lhs_contracting_dims={0,2}, rhs_contracting_dims={0,1}"
    assert flops("f32[5,7]", "f32[2,5,3]", "f32[2,3,7]", attributes, "dot") == 2 * 5 * 7 * 2 * 3


def test_a_batched_product_counts_no_window_that_misses() -> None:
    # bqhk,bshk->bhqs of b 2, h 4, q 256, s 384, k 128, as the compiler for v5p prints it.
    batched = flops(
        "bf16[2,4,256,384]",
        "bf16[2,256,4,128]",
        "bf16[2,384,4,128]",
        "window={size=2x4 stride=1x3 lhs_dilate=2x4}, dim_labels=0b1f_0o1i->01bf",
    )
    assert batched == 2 * (2 * 4) * 256 * 384 * 128


@pytest.mark.parametrize(
    ("window", "out", "taps"),
    [
        ("{size=3x3 pad=1_1x1_1}", 8, (3 * 8 - 2) ** 2),
        ("{size=3x3}", 6, 18**2),
        ("{size=3x3 stride=2x2 pad=0_1x0_1}", 4, 11**2),
        ("{size=3x3 pad=2_0x2_0}", 8, (3 * 8 - 3) ** 2),  # causal: nothing from the future
        ("{size=3x3 pad=2_2x2_2 rhs_dilate=2x2}", 8, (3 * 8 - 4) ** 2),
        ("{size=3x3 pad=1_2x1_2 lhs_dilate=2x2 rhs_reversal=1x1}", 16, 23**2),
    ],
)
def test_a_convolution_counts_what_meets_an_input(window: str, out: int, taps: int) -> None:
    counted = flops(
        f"bf16[2,{out},{out},32]",
        "bf16[2,8,8,16]",
        "bf16[3,3,16,32]",
        f"window={window}, dim_labels=b01f_01io->b01f",
    )
    assert counted == 2 * 2 * 16 * 32 * taps


def test_operands_that_are_not_there_are_an_error() -> None:
    text = "ENTRY %main () -> f32[2,2] {\n"
    text += "  ROOT %c = f32[2,2] convolution(%x, %y), dim_labels=bf_io->bf\n}\n"
    entry = parse_module(text).entry
    with pytest.raises(ValueError, match="unknown shape"):
        matmul_flops(entry.root, entry)


QUERY, KEY = Shape("bf16", (2, 4, 1024, 128)), Shape("bf16", (2, 4, 2048, 128))
OTHERS = [Shape("s32", (1024, 128)), Shape("f32", (2, 4, 8, 1024))]
PRODUCT = 2 * (2 * 4) * 1024 * 2048 * 128
SCRATCH = Shape("f32", (2, 512, 128))


@pytest.mark.parametrize(
    ("name", "results", "products"),
    [
        ("splash_mha_fwd_segmented_residuals", [SCRATCH, QUERY], 2),
        ("flash_forward", [QUERY], 2),
        ("splash_mha_dq_segmented_no_residuals", [SCRATCH, QUERY], 3),
        ("splash_mha_dkv_segmented_no_residuals", [SCRATCH, KEY, KEY], 4),
        # Fused: dQ of each of four blocks of keys comes out as well.
        (
            "splash_mha_dkv_segmented_no_residuals",
            [SCRATCH, Shape("bf16", (2, 4, 4, 1024, 128)), KEY, KEY],
            5,
        ),
        ("flash_backward", [QUERY, KEY, KEY], 5),
    ],
)
def test_attention_kernels_are_known_by_name_and_results(
    name: str, results: list[Shape], products: int
) -> None:
    operands = [Shape("s8", (1, 2, 4)), QUERY, KEY, KEY, *OTHERS]
    assert attention_flops(name, operands, results) == products * PRODUCT


def test_keys_may_be_shared_by_heads_and_have_their_width_first() -> None:
    shared = [Shape("bf16", (8, 1024, 128)), Shape("bf16", (2048, 128))]
    assert attention_flops("splash_mqa_fwd", shared, []) == 2 * PRODUCT
    turned = [QUERY, Shape("bf16", (2, 4, 128, 2048))]
    assert attention_flops("splash_mha_fwd", turned, []) == 2 * PRODUCT


def test_other_kernels_have_no_attention_flops() -> None:
    assert attention_flops("matmul", [QUERY, KEY], [QUERY]) is None
    assert attention_flops("flash_forward", [QUERY], [QUERY]) is None


def test_kernels_and_cycles_are_read_from_the_configuration() -> None:
    text = """ENTRY %main (x: bf16[8,8]) -> bf16[8,8] {
  %x = bf16[8,8] parameter(0)
  %multiply.12 = bf16[8,8] custom-call(%x), custom_call_target="tpu_custom_call", backend_config={"custom_call_config":{"body":"TUzvUg==","cost_estimate":{"flops":"2147483648","bytes_accessed":"6291456"}}}
  %buffer = bf16[8,8] custom-call(), custom_call_target="AllocateBuffer"
  ROOT %copy = bf16[8,8] copy(%x), backend_config={"window_config":{"estimated_cycles":"2944"}}
}
"""  # noqa: E501
    kernel, buffer, copy = list(parse_module(text).entry.instructions.values())[1:]
    assert [kernel_name(one) for one in (kernel, buffer, copy)] == ["multiply", None, None]
    assert [stated_flops(one) for one in (kernel, buffer)] == [2147483648, 0]
    assert [estimated_cycles(one) for one in (kernel, copy)] == [0, 2944]
