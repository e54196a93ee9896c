"""PyTorch's side of versus_torch.py: a training step of diffusers' Wan transformer on CPU."""

import json
import sys
from collections.abc import Callable
from typing import Any

import diffusers
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.turns import serve

THREADS = 2


def torch_step(sizes: dict[str, int]) -> tuple[Callable[[], None], dict[str, Any]]:
    """A call that makes one update, and what is to be said of the model."""
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    model = diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=sizes["heads"],
        attention_head_dim=sizes["width"] // sizes["heads"],
        in_channels=sizes["channels"],
        out_channels=sizes["channels"],
        text_dim=sizes["width"],
        freq_dim=256,
        ffn_dim=sizes["hidden"],
        num_layers=sizes["depth"],
        rope_max_seq_len=64,
    )
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    latents = (1, sizes["channels"], sizes["frames"], 2 * sizes["side"], 2 * sizes["side"])
    noisy, target = torch.randn(latents), torch.randn(latents)
    caption, time = torch.randn(1, sizes["caption"], sizes["width"]), torch.tensor([500])

    def gradients() -> None:
        velocity = model(noisy, time, caption, return_dict=False)[0]
        (velocity - target).square().mean().backward()

    def step() -> None:
        gradients()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()

    # Only attention that is written out is counted.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        gradients()
    optimizer.zero_grad()
    facts = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "flops": counter.get_total_flops(),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
    }
    return step, facts


if __name__ == "__main__":
    serve(*torch_step(json.loads(sys.argv[1])))
