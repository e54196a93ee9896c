"""The Wan 2.1 autoencoder on CPU beside diffusers': 17 frames of 256 x 256, encoded and decoded.

    python3 -m venv build/torch
    build/torch/bin/pip install torch==2.13.0 diffusers transformers numpy
    python -m benchmarks.wan_vae [FRAMES SIDE [TURNS]]

Both have the published sizes and fresh parameters in float32, on 2 threads, and code a latent
frame at a time: diffusers because it does, and we by the programs that clips are streamed with.
They are processes that take turns, so that a noisy machine is as noisy for both; a ratio is of two
turns that follow each other, ours to theirs, so that below 1 we are faster. Memory is the most
that a process ever held, compiling and libraries included. TORCH_PYTHON names another
environment's Python. Prints medians and writes them to benchmarks/results/wan_vae.json.
"""

import datetime
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.turns import serve
from benchmarks.versus_torch import ENVIRONMENT, Side, compare
from sora_jax.models.latents import LatentStatistics
from sora_jax.models.wan_vae import WanVAE, WanVAEConfig
from sora_jax.sample.stream import decode_chunk, encode_chunk
from sora_jax.scaling.flops import count_parameters

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "wan_vae.json"
TORCH = Path(os.environ.get("TORCH_PYTHON", HERE.parent / "build" / "torch" / "bin" / "python"))
CONFIG = WanVAEConfig()
FRAMES, SIDE = 17, 256
TURNS = 3


def our_coding(what: str, frames: int, side: int) -> tuple[Callable[[], None], dict[str, Any]]:
    """A call that encodes or decodes a clip, and what is to be said of the model."""
    vae = jax.jit(lambda: WanVAE(CONFIG, rngs=nnx.Rngs(0)))()
    statistics = LatentStatistics(jnp.zeros(CONFIG.channels), jnp.ones(CONFIG.channels))
    key, latent_side = jax.random.key(1), side // CONFIG.spatial
    shape = (1, (frames - 1) // CONFIG.temporal + 1, latent_side, latent_side, CONFIG.channels)
    latents = jax.random.normal(key, shape)
    video = jax.random.randint(key, (1, frames, side, side, 3), 0, 256).astype(jnp.uint8)

    def step() -> None:
        state = None
        for number in range(latents.shape[1]):
            if what == "decode":
                chunk = latents[:, number : number + 1]
                coded, state = decode_chunk(vae, statistics, chunk, state)
            else:
                end = 1 + CONFIG.temporal * number
                chunk = video[:, max(end - CONFIG.temporal, 0) : end]
                coded, state = encode_chunk(vae, statistics, chunk, state)
            coded.block_until_ready()

    return step, {"parameters": count_parameters(vae).total}


def main(arguments: list[str]) -> None:
    """Measures, prints and writes; as `--serve encode|decode FRAMES SIDE`, is our side."""
    if arguments[:1] == ["--serve"]:
        serve(*our_coding(arguments[1], int(arguments[2]), int(arguments[3])), steps=1)
        return
    given = [int(argument) for argument in arguments]
    frames, side, turns = given + [FRAMES, SIDE, TURNS][len(given) :]
    if not TORCH.exists():
        raise SystemExit(f"{TORCH} is not there; this file's first lines say how to make it")
    found, size = {}, (str(frames), str(side))
    for what in ("encode", "decode"):
        sizes = json.dumps({"what": what, "frames": frames, "side": side})
        ours = Side.start([sys.executable, "-m", "benchmarks.wan_vae", "--serve", what, *size])
        theirs = Side.start([str(TORCH), "-m", "benchmarks.wan_vae_in_torch", sizes])
        found[what] = compare(ours, theirs, turns)
        for each in (ours, theirs):
            each.process.communicate()
    result = {
        "date": datetime.date.today().isoformat(),
        "jax": jax.__version__,
        "command": f"python -m benchmarks.wan_vae {frames} {side} {turns}",
        "hardware": f"{os.cpu_count()} CPU cores",
        "load": os.getloadavg()[1],  # others' work beside ours
        "frames": frames,
        "side": side,
        "threads": ENVIRONMENT["OMP_NUM_THREADS"],
        "turns": turns,
        **found,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
