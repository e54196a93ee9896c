"""PyTorch's side of versus_torch.py, a training step of diffusers' Wan transformer on CPU, and of
step_time.py, where it is compiled and computes in bfloat16 on a GPU if there is one."""

import contextlib
import json
import sys
from collections.abc import Callable
from typing import Any

import diffusers
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.turns import process_peak, serve

THREADS = 2


def torch_step(sizes: dict[str, Any]) -> tuple[Callable[[], None], dict[str, Any]]:
    """A call that makes one update, and what is to be said of the model.

    Args:
        sizes: of the model and of what it is given; `rows`, `text_width`, `accelerated` and
            `recompute` may be left out.
    """
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    accelerated = sizes.get("accelerated", False)
    torch.set_default_device("cuda" if accelerated and torch.cuda.is_available() else "cpu")
    model = wan(sizes)
    if sizes.get("recompute"):
        model.enable_gradient_checkpointing()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    rows, text_width = sizes.get("rows", 1), sizes.get("text_width", sizes["width"])
    latents = (rows, sizes["channels"], sizes["frames"], 2 * sizes["side"], 2 * sizes["side"])
    noisy, target = torch.randn(latents), torch.randn(latents)
    caption = torch.randn(rows, sizes["caption"], text_width)
    time = torch.full((rows,), 500)
    forward = torch.compile(model) if accelerated else model

    def gradients() -> None:
        with _autocast(accelerated):
            velocity = forward(noisy, time, caption, return_dict=False)[0]
        (velocity.float() - target).square().mean().backward()

    def step() -> None:
        gradients()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        if torch.get_default_device().type == "cuda":
            torch.cuda.synchronize()

    facts = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
    }
    if not accelerated:
        # Only attention that is written out is counted.
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            gradients()
        optimizer.zero_grad()
        facts["flops"] = counter.get_total_flops()
    return step, facts


def wan(sizes: dict[str, Any]) -> Any:
    """The transformer, with fresh parameters in float32."""
    return diffusers.WanTransformer3DModel(
        patch_size=(1, 2, 2),
        num_attention_heads=sizes["heads"],
        attention_head_dim=sizes["width"] // sizes["heads"],
        in_channels=sizes["channels"],
        out_channels=sizes["channels"],
        text_dim=sizes.get("text_width", sizes["width"]),
        freq_dim=256,
        ffn_dim=sizes["hidden"],
        num_layers=sizes["depth"],
        rope_max_seq_len=64,
    )


def _autocast(accelerated: bool) -> Any:
    if not accelerated:
        return contextlib.nullcontext()
    return torch.autocast(torch.get_default_device().type, torch.bfloat16)


def device_peak() -> int:
    """The most bytes that the GPU ever held; of the process where there is none."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else process_peak()


if __name__ == "__main__":
    asked = json.loads(sys.argv[1])
    serve(*torch_step(asked), peak=device_peak if asked.get("accelerated") else process_peak)
