"""The arithmetic of one instruction: FLOPs of matrix products, of attention kernels, cycles.

On a TPU a matrix product is a convolution, and a batched one a convolution over the batch axes as
if they were space, with windows that mostly miss. So FLOPs count the taps that hit an input.
"""

import functools
import math
import re
from collections.abc import Sequence

import numpy as np

from sora_jax.pod.hlo import Computation, Instruction, Shape

# How many products of queries x keys x width an attention kernel makes, by its name. Forward:
# scores and output. Backward: scores and dP again, and then dQ, or dK and dV, or all three.
ATTENTION_PRODUCTS = (
    (re.compile(r"dkv|bwd|backward"), 4),
    (re.compile(r"dq"), 3),
    (re.compile(r"fwd|forward|flash|splash|attention|mha|mqa"), 2),
)
FUSED_BACKWARD_PRODUCTS = 5
FLOATS = ("bf16", "f16", "f32")


def estimated_cycles(instruction: Instruction) -> int:
    """Cycles in which the compiler thinks to be done, 0 where it does not say."""
    return _configured(instruction, "estimated_cycles")


def kernel_name(instruction: Instruction) -> str | None:
    """Name of the Pallas kernel that the instruction calls, None if it calls none."""
    if instruction.attributes.get("custom_call_target") != '"tpu_custom_call"':
        return None
    return re.sub(r"[.\d]+$", "", instruction.name)


def stated_flops(instruction: Instruction) -> int:
    """FLOPs in the kernel's own cost estimate, 0 if it has none."""
    estimate = re.search(r'"cost_estimate":\{([^}]*)\}', _config(instruction))
    flops = re.search(r'"flops":"?(\d+)', estimate[1]) if estimate else None
    return int(flops[1]) if flops else 0


def _config(instruction: Instruction) -> str:
    return instruction.attributes.get("backend_config", "")


def _configured(instruction: Instruction, key: str) -> int:
    found = re.search(rf'"{key}":"?(\d+)', _config(instruction))
    return int(found[1]) if found else 0


def attention_flops(name: str, operands: Sequence[Shape], results: Sequence[Shape]) -> int | None:
    """FLOPs of an attention kernel in which every query sees every key; None for another kernel.

    Queries and keys are the first floating-point operands, [..., tokens, width] or with the last
    two axes swapped. A kernel that leaves out what is masked does less.
    """
    products = next((count for pattern, count in ATTENTION_PRODUCTS if pattern.search(name)), None)
    floats = [one for one in operands if one.dtype in FLOATS and len(one.dims) > 1]
    if products is None or len(floats) < 2:
        return None
    query, key = floats[:2]
    width = min(set(query.dims[-2:]) & set(key.dims[-2:]), default=0)
    if not width:
        return None
    if products == 4:
        # dQ of each block of keys may be a result of its own, before these are summed.
        least = min(query.elements, key.elements)
        wide = [one for one in results if one.elements >= least and one.dtype in FLOATS]
        products = FUSED_BACKWARD_PRODUCTS if len(wide) > 2 else products
    keys = math.prod(key.dims[-2:]) // width
    return products * 2 * query.elements * keys


def matmul_flops(instruction: Instruction, computation: Computation) -> int:
    """FLOPs of a convolution or dot, a multiplication and an addition counted as two; else 0."""
    if instruction.opcode not in ("convolution", "dot"):
        return 0
    operands = computation.operand_shapes(instruction)
    if len(operands) != 2 or not all(operands):
        raise ValueError(f"{instruction.opcode} {instruction.name} has operands of unknown shape")
    left, right = operands[0][0].dims, operands[1][0].dims
    if instruction.opcode == "dot":
        contracted = _integers(instruction.attributes.get("lhs_contracting_dims", ""))
        return 2 * instruction.shapes[0].elements * math.prod(left[axis] for axis in contracted)
    return _convolution_flops(instruction, left, right, instruction.shapes[0].dims)


def _integers(text: str) -> list[int]:
    return [int(number) for number in re.findall(r"-?\d+", text)]


def _convolution_flops(
    instruction: Instruction, left: Sequence[int], right: Sequence[int], out: Sequence[int]
) -> int:
    """`dim_labels=b01f_01io->b01f` names batch, features and the numbered axes of space."""
    labels = re.fullmatch(r"(\w+)_(\w+)->(\w+)", instruction.attributes["dim_labels"])
    if labels is None:
        raise ValueError(f"convolution {instruction.name} has labels of an unknown form")
    inputs, kernel, outputs = labels.groups()
    window = dict(
        part.split("=") for part in instruction.attributes.get("window", "{}")[1:-1].split()
    )

    def sizes(key: str, default: str) -> list[list[int]]:
        space = sum(label.isdigit() for label in kernel)
        parts = window[key].split("x") if key in window else [default] * space
        return [[int(number) for number in part.split("_")] for part in parts]

    strides, pads = sizes("stride", "1"), sizes("pad", "0_0")
    spreads, dilations = sizes("lhs_dilate", "1"), sizes("rhs_dilate", "1")
    hits = 1
    for axis in range(len(strides)):
        hits *= _hits(
            left[inputs.index(str(axis))],
            right[kernel.index(str(axis))],
            out[outputs.index(str(axis))],
            strides[axis][0],
            pads[axis][0],
            spreads[axis][0],
            dilations[axis][0],
        )
    channels = out[outputs.index("b")] * out[outputs.index("f")] * right[kernel.index("i")]
    return 2 * channels * hits


@functools.cache
def _hits(
    inputs: int, kernel: int, outputs: int, stride: int, pad: int, spread: int, dilation: int
) -> int:
    """Pairs of an output and a tap of the kernel that meet an input, not padding or a gap."""
    starts = np.arange(outputs) * stride - pad
    reach = (inputs - 1) * spread + 1
    total = 0
    for tap in range(kernel):
        places = starts + tap * dilation
        total += int(np.sum((places >= 0) & (places < reach) & (places % spread == 0)))
    return total
