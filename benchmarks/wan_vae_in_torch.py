"""PyTorch's side of wan_vae.py: diffusers' Wan 2.1 autoencoder on CPU, coding a clip."""

import json
import sys
from collections.abc import Callable
from typing import Any

import diffusers
import torch

from benchmarks.turns import serve

THREADS = 2


def torch_coding(sizes: dict[str, Any]) -> tuple[Callable[[], None], dict[str, Any]]:
    """A call that encodes or decodes a clip, and what is to be said of the model."""
    torch.manual_seed(0)
    torch.set_num_threads(THREADS)
    model = diffusers.AutoencoderKLWan().eval()  # of the published sizes
    frames, side = sizes["frames"], sizes["side"]
    video = torch.randn(1, 3, frames, side, side)
    latents = torch.randn(1, model.config.z_dim, (frames - 1) // 4 + 1, side // 8, side // 8)

    @torch.inference_mode()
    def step() -> None:
        if sizes["what"] == "encode":
            model.encode(video)
        else:
            model.decode(latents)

    facts = {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "versions": {"torch": torch.__version__, "diffusers": diffusers.__version__},
    }
    return step, facts


if __name__ == "__main__":
    serve(*torch_coding(json.loads(sys.argv[1])), steps=1)
