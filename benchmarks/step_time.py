"""The whole training step on one GPU, beside diffusers' Wan transformer of the same sizes in torch.

    python3 -m venv build/torch
    build/torch/bin/pip install torch diffusers transformers numpy     # torch for CUDA
    python -m benchmarks.step_time --backend cudnn
    python -m benchmarks.step_time --backend reference --tiny          # anywhere: that it runs

Ours is the step that a run makes: noise, velocity, gradients, clipping, AdamW in float32, and the
EMA, in bfloat16 where it computes. Torch's is compiled, with flash attention, autocast to bfloat16
over float32 parameters, clipping and fused AdamW, and no EMA. Both take captions as embeddings, and
compute their blocks again where `recompute` says so. They take turns, each in a process of its own.
FLOPs are the model's, by our count, for both. Writes benchmarks/results/step_time.json.
"""

import argparse
import dataclasses
import datetime
import functools
import json
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.turns import serve
from benchmarks.versus_torch import TORCH, Side, compare
from experiments._transformers import GIVEN, transformer
from sora_jax.data.buckets import ShapeClass
from sora_jax.experiment import Experiment
from sora_jax.models.text import TextConfig
from sora_jax.networks import make_generator
from sora_jax.nn.attention import AttentionConfig
from sora_jax.programs import abstract_batch, step_of
from sora_jax.scaling.flops import train_flops
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.sharding.rules import replicated
from sora_jax.train.compiler_options import compile_here
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.programs import lower_step
from sora_jax.train.state import init_state
from sora_jax.types import LatentBatch
from sora_jax.work import flops_row

RESULT = Path(__file__).parent / "results" / "step_time.json"
TOKENS_A_STEP = 32_768
# Dense bfloat16. Source: NVIDIA's data sheets of the H100 and H200 SXM.
PEAK_FLOPS = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12}


@dataclasses.dataclass(frozen=True)
class Case:
    """A model, and rows of one clip each: latent frames, and patches a side."""

    model: str
    stage: str
    frames: int
    side: int
    recompute: bool = False

    @property
    def tokens(self) -> int:
        return self.frames * self.side**2

    @property
    def rows(self) -> int:
        return max(1, TOKENS_A_STEP // self.tokens)


CASES = tuple(
    Case(model, stage, frames, side, recompute=model == "2b")
    for model in ("400m", "2b")
    for stage, side in (("p256", 16), ("p480", 40))
    for frames in (1, 16)
)
TINY = (Case("30m", "p256", 2, 4),)


def experiment_of(case: Case, backend: str, tiny: bool) -> Experiment:
    """The experiment of a case on one device."""
    found = transformer(case.model, case.stage, MeshConfig(fsdp=1), 8, GIVEN)
    change: dict[str, Any] = {"remat": "full" if case.recompute else "none"}
    if tiny:
        change |= {"depth": 2}
        found = dataclasses.replace(
            found,
            text=TextConfig(source="given", width=64),
            data=dataclasses.replace(found.data, text_length=8),
        )
    attention = AttentionConfig(kernel=backend)  # type: ignore[arg-type]
    dit = dataclasses.replace(found.dit, attention=attention, **change)
    return dataclasses.replace(found, dit=dit)


def our_step(case: Case, backend: str, tiny: bool) -> tuple[Callable[[], None], dict[str, Any]]:
    """A call that makes one update, and what is to be said of it."""
    experiment = experiment_of(case, backend, tiny)
    rows = 2 if tiny else case.rows
    shape_class, mesh = ShapeClass(rows, case.tokens), make_mesh(experiment.mesh)
    stage = experiment.dit_stage
    update = step_of(stage.training, diffusion_loss(stage.diffusion), [shape_class])
    make_model = functools.partial(make_generator, experiment)
    state = init_state(make_model, update.optimizer, jax.random.key(0), mesh)
    batch = filled(abstract_batch(experiment, shape_class, mesh), case)
    key = jax.device_put(jax.random.key(1), replicated(mesh))
    compiled = compile_here(lower_step(update, state, batch, key))

    def step() -> None:
        nonlocal state
        state, _ = jax.block_until_ready(compiled(state, batch, key))

    row = flops_row(experiment, shape_class)
    device = jax.devices()[0]
    return step, {
        "device": device.device_kind,
        "versions": {"jax": jax.__version__},
        "tokens": rows * case.tokens,
        "flops": rows * train_flops(experiment.dit, row, experiment.text),
    }


def filled(batch: LatentBatch, case: Case) -> LatentBatch:
    """Arrays for abstract ones: noise as latents and captions, and one whole clip in every row."""
    places = (jnp.arange(case.frames) / 6, *(jnp.arange(case.side) - (case.side - 1) / 2,) * 2)
    coordinates = jnp.stack(jnp.meshgrid(*places, indexing="ij"), -1).reshape(-1, 3)
    keys = iter(jax.random.split(jax.random.key(2), 8))

    def fill(like: Any) -> jax.Array:
        if jnp.issubdtype(like.dtype, jnp.floating):
            return jax.random.normal(next(keys), like.shape, like.dtype)
        return jnp.ones(like.shape, like.dtype)

    arrays = dataclasses.replace(
        jax.tree.map(fill, batch),
        coordinates=jnp.broadcast_to(coordinates, batch.coordinates.shape),
        frames=jnp.broadcast_to(jnp.arange(case.tokens) // case.side**2, batch.frames.shape),
        example_id=jnp.arange(len(batch.example_id))[:, None],
    )
    return jax.tree.map(
        lambda array, like: jax.device_put(array.astype(like.dtype), like.sharding), arrays, batch
    )


def device_peak() -> int:
    """The most bytes that the device ever held; 0 where it does not say."""
    return int((jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0))


def torch_sizes(case: Case, backend: str, tiny: bool) -> dict[str, Any]:
    """What wan_in_torch.py is told of a case."""
    experiment = experiment_of(case, backend, tiny)
    dit = experiment.dit
    return {
        "frames": case.frames,
        "side": case.side,
        "caption": experiment.data.text_length,
        "channels": experiment.vae.channels,
        "width": dit.width,
        "text_width": experiment.text.width,
        "depth": dit.depth,
        "heads": dit.heads,
        "hidden": dit.hidden,
        "rows": 2 if tiny else case.rows,
        "accelerated": True,
        "recompute": case.recompute,
    }


def measured(case: Case, backend: str, tiny: bool) -> dict[str, Any]:
    """Both sides of a case, with tokens a second and the share of the device's peak."""
    asked = json.dumps([dataclasses.asdict(case), backend, tiny])
    theirs = json.dumps(torch_sizes(case, backend, tiny))
    ours = [sys.executable, "-m", "benchmarks.step_time", "--serve", asked]
    found = compare(
        Side.start(ours), Side.start([str(TORCH), "-m", "benchmarks.wan_in_torch", theirs])
    )
    facts = found["sides"]["sora_jax"]
    peak = PEAK_FLOPS.get(facts["device"])
    for side in found["sides"].values():
        seconds = side["seconds_a_step"]
        side["tokens_a_second"] = round(facts["tokens"] / seconds)
        side["mfu"] = None if peak is None else round(facts["flops"] / seconds / peak, 4)
    return {"case": dataclasses.asdict(case), **found}


def main(arguments: Sequence[str]) -> None:
    """Measures, prints and writes; as `--serve`, is our side of one case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="cudnn", choices=("cudnn", "reference"))
    parser.add_argument("--tiny", action="store_true", help="a case for any machine; no figure")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    chosen = parser.parse_args(arguments)
    if chosen.serve:
        os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # torch's turns need memory too
        case, backend, tiny = json.loads(chosen.serve)
        serve(*our_step(Case(**case), backend, tiny), peak=device_peak)
        return
    if not TORCH.exists():
        raise SystemExit(f"{TORCH} is not there; this file's first lines say how to make it")
    cases = TINY if chosen.tiny else CASES
    found = [measured(case, chosen.backend, chosen.tiny) for case in cases]
    result = {
        "command": f"python -m benchmarks.step_time --backend {chosen.backend}",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{found[0]['sides']['sora_jax']['device']}, {os.cpu_count()} CPU cores",
        "cases": found,
    }
    print(json.dumps(result, indent=2))
    if not chosen.tiny:
        RESULT.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
