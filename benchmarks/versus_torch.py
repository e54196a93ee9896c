"""A training step on CPU beside PyTorch's: our transformer, and diffusers' Wan of the same sizes.

    python3 -m venv build/torch
    build/torch/bin/pip install torch==2.13.0 diffusers transformers numpy
    python -m benchmarks.versus_torch

Forward, backward, clipping and AdamW, in float32, on 2 threads, 1,024 tokens. Both are processes
that take turns, so that a noisy machine is as noisy for both; a ratio is of two turns that follow
each other. Memory is the most that a process ever held, compiling and libraries included. Prints
medians and writes them to benchmarks/results/versus_torch.json.
"""

import dataclasses
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.turns import serve
from sora_jax.models.dit import DiT, DiTConfig
from sora_jax.nn.attention import AttentionConfig
from sora_jax.scaling.flops import Row, count_parameters, train_flops
from sora_jax.train.optimizer import OptimizerConfig, make_optimizer
from sora_jax.train.programs import Programs
from sora_jax.types import Layout, Text

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "versus_torch.json"
TORCH = HERE.parent / "build" / "torch" / "bin" / "python"
TURNS = 12
FRAMES, SIDE, CAPTION, CHANNELS, WIDTH = 4, 16, 256, 16, 384
CONFIG = DiTConfig(
    depth=12,
    width=WIDTH,
    heads=3,
    remat="matmuls",
    attention=AttentionConfig(kernel="blockwise"),
)
ENVIRONMENT = {"OMP_NUM_THREADS": "2", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def our_step() -> tuple[Callable[[], None], dict[str, Any]]:
    """A call that makes one update, and what is to be said of the model."""
    optimizer = make_optimizer(OptimizerConfig(warmup_steps=0), 1_000)

    @jax.jit
    def start() -> Any:
        model = DiT(CONFIG, CHANNELS, WIDTH, rngs=nnx.Rngs(0))
        return model, optimizer.init(model)

    state = start()
    facts = {"parameters": count_parameters(state[0]).total, "flops": train_flops(CONFIG, row())}
    keys = jax.random.split(jax.random.key(0), 3)
    tokens, target = (
        jax.random.normal(key, (1, row().tokens, row().channels * 4)) for key in keys[:2]
    )
    text = Text(jax.random.normal(keys[2], (1, CAPTION, WIDTH)), jnp.ones((1, CAPTION), jnp.int32))
    data = (tokens, target, layout(), text)

    def update(state: Any, data: Any) -> Any:
        tokens, target, layout, text = data
        model, opt_state = state
        gradients = jax.grad(
            lambda model: jnp.mean(jnp.square(model(tokens, layout, text) - target))
        )(model)
        updates, opt_state = optimizer.update(gradients, opt_state, model)
        return optax.apply_updates(model, updates), opt_state

    lowered = jax.jit(update, donate_argnums=0).lower(state, data)
    compiled = Programs("the step", [(data, lowered)]).of(data)

    def step() -> None:
        nonlocal state
        state = jax.block_until_ready(compiled(state, data))

    return step, facts


def row() -> Row:
    return Row(FRAMES * SIDE**2, CHANNELS, CAPTION, WIDTH, levels=1)


def layout() -> Layout:
    """One clip of one noise level."""
    places = (jnp.arange(FRAMES) / 6, *(jnp.arange(SIDE) - (SIDE - 1) / 2,) * 2)
    coordinates = jnp.stack(jnp.meshgrid(*places, indexing="ij"), -1).reshape(1, -1, 3)
    tokens = coordinates.shape[1]
    return Layout(
        coordinates=coordinates,
        segments=jnp.ones((1, tokens), jnp.int32),
        level_index=jnp.zeros((1, tokens), jnp.int32),
        noise_levels=jnp.full((1, 1), 0.5),
        level_segments=jnp.ones((1, 1), jnp.int32),
    )


@dataclasses.dataclass
class Side:
    """A process that makes steps when told to."""

    process: subprocess.Popen[str]
    facts: dict[str, Any]
    turns: list[dict[str, float]]

    @classmethod
    def start(cls, command: list[str]) -> "Side":
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **ENVIRONMENT},
        )
        return cls(process, _answer(process), [])

    def turn(self) -> None:
        """A few steps."""
        assert self.process.stdin is not None
        print(file=self.process.stdin, flush=True)
        self.turns.append(_answer(self.process))

    def median(self, name: str) -> float:
        return statistics.median(turn[name] for turn in self.turns)


def _answer(process: "subprocess.Popen[str]") -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f"{' '.join(process.args)} ended without an answer; run it to see why")
    return json.loads(line)


def compare(ours: Side, theirs: Side, turns: int = TURNS) -> dict[str, Any]:
    """Medians over pairs of turns, either first in every other; the first pair warms up."""
    for number in range(turns + 1):
        for side in (ours, theirs)[:: 1 if number % 2 else -1]:
            time.sleep(0.5)  # a process that has just ended its turn may still spin
            side.turn()
        if number == 0:
            ours.turns.clear()
            theirs.turns.clear()
    ratios = {
        name: statistics.median(
            a[name] / b[name] for a, b in zip(ours.turns, theirs.turns, strict=True)
        )
        for name in ("seconds", "cpu_seconds")
    }
    peaks = [side.turns[-1]["peak_bytes"] for side in (ours, theirs)]
    if all(peaks):  # some devices do not tell
        ratios["peak_bytes"] = peaks[0] / peaks[1]
    return {
        "ratios": {name: round(ratio, 3) for name, ratio in ratios.items()},
        "sides": {
            name: {
                **side.facts,
                "seconds_a_step": round(side.median("seconds"), 3),
                "cpu_seconds_a_step": round(side.median("cpu_seconds"), 3),
                "peak_mib": round(side.turns[-1]["peak_bytes"] / 2**20),
            }
            for name, side in (("sora_jax", ours), ("torch", theirs))
        },
    }


def main(arguments: list[str]) -> None:
    """Measures, prints and writes; as `--serve`, is our side."""
    if arguments == ["--serve"]:
        serve(*our_step())
        return
    if not TORCH.exists():
        raise SystemExit(f"{TORCH} is not there; this file's first lines say how to make it")
    sizes = {
        "frames": FRAMES,
        "side": SIDE,
        "caption": CAPTION,
        "channels": CHANNELS,
        "width": WIDTH,
        "depth": CONFIG.depth,
        "heads": CONFIG.heads,
        "hidden": CONFIG.hidden,
    }
    theirs = [str(TORCH), "-m", "benchmarks.wan_in_torch", json.dumps(sizes)]
    found = compare(
        Side.start([sys.executable, "-m", "benchmarks.versus_torch", "--serve"]),
        Side.start(theirs),
    )
    result = {
        "command": "python -m benchmarks.versus_torch",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores",
        "versions": {"jax": jax.__version__, "python": sys.version.split()[0]},
        "environment": ENVIRONMENT,
        "turns": TURNS,
        **found,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(sys.argv[1:])
