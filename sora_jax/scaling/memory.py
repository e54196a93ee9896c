"""Memory of a training step, estimated from sizes alone: to choose a slice by. What a step really
takes there `sora compile` finds out."""

from sora_jax.models.dit import DiTConfig
from sora_jax.scaling.flops import Row

FLOAT32 = 4


def state_bytes(parameters: int, moment_bytes: int = FLOAT32) -> int:
    """Of weights, their average, two moments of `moment_bytes` each and the gradient."""
    return parameters * (3 * FLOAT32 + 2 * moment_bytes)


def activation_bytes(config: DiTConfig, row: Row) -> int:
    """Of what forward keeps of one row for the backward pass, and the block that this works on.

    Counted in vectors a token and block: inputs of products and norms, and tables spread over the
    tokens. How many XLA keeps was read off programs for CPU: 36, and 24 more where blocks are a
    loop, across whose turns it computes no elementwise work again.
    """
    element = 2 if config.compute == "bfloat16" else FLOAT32
    hidden = config.hidden / config.width
    all_of_a_block = 36 + 2 * hidden
    kept = {
        "none": all_of_a_block + (0 if config.unroll else 24),
        "matmuls": 8 + hidden,
        "attention": 3.0,
        "offload": 3.0,
        "full": 1.0,
    }[config.remat]
    worked_on = 0.0 if config.remat == "none" else all_of_a_block
    vectors = config.depth * kept + worked_on
    total = vectors * row.tokens * config.width * element
    if config.attention.kernel == "reference":  # scores, and what the softmax makes of them
        pairs = row.tokens * (row.tokens + row.text_tokens) * config.heads
        blocks = config.depth if config.remat in ("none", "matmuls") else 1
        total += 2 * blocks * pairs * FLOAT32
    return round(total)
