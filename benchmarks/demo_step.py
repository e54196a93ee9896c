"""Time of a training step of the demo's two stages, with and without what was done to shorten it.

    python -m benchmarks.demo_step

Every case takes its turn in each round, so that a noisy machine is as noisy for all of them;
compare within one run only. Prints medians and writes them to benchmarks/results/demo_step.json.
"""

import datetime
import functools
import json
import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sora_jax.config import load_experiment
from sora_jax.data.buckets import Bucket
from sora_jax.experiment import Experiment
from sora_jax.models.latents import LatentStatistics, encode_batch, lay_out
from sora_jax.networks import make_generator, make_vae
from sora_jax.programs import step_of
from sora_jax.sharding.mesh import make_mesh
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.run import TrainConfig
from sora_jax.train.state import init_state
from sora_jax.train.step import LossFunction
from sora_jax.train.vae_losses import vae_loss
from sora_jax.types import VideoBatch

ROUNDS = 15
BUCKET = Bucket(9, 32, 32)
RESULT = Path(__file__).parent / "results" / "demo_step.json"


def clips(experiment: Experiment, rows: int) -> VideoBatch:
    """Noise in the shape of the demo's longest clips."""
    shape = (rows, BUCKET.frames, BUCKET.height, BUCKET.width, 3)
    return VideoBatch(
        video=jax.random.randint(jax.random.key(0), shape, 0, 256).astype(jnp.uint8),
        text=jnp.ones((rows, experiment.data.text_length), jnp.int32),
        fps=jnp.full(rows, experiment.data.fps),
        example_id=jnp.arange(rows),
    )


def compiled_update(
    experiment: Experiment, make_model: Any, training: TrainConfig, loss: LossFunction
) -> Callable[[Any], Any]:
    """An update of a fresh model of the experiment on a batch, compiled."""
    update = step_of(training, loss)
    make = functools.partial(make_model, experiment)
    state = init_state(make, update.optimizer, jax.random.key(0), make_mesh(experiment.mesh))
    return functools.partial(jax.jit(update), state, key=jax.random.key(1))


def vae_case(*changes: str) -> Callable[[], Any]:
    """A step of the autoencoder."""
    experiment = load_experiment("demo", changes)
    stage = experiment.vae_stage
    step = compiled_update(experiment, make_vae, stage.training, vae_loss(stage.loss))
    batch = clips(experiment, stage.pixel_frames // BUCKET.frames)
    return lambda: step(batch)


def dit_case(*changes: str) -> Callable[[], Any]:
    """A step of the transformer; it encodes its batch first unless latents are made once."""
    experiment = load_experiment("demo", changes)
    stage = experiment.dit_stage
    step = compiled_update(
        experiment, make_generator, stage.training, diffusion_loss(stage.diffusion)
    )
    names = [bucket.name for bucket in experiment.data.buckets]
    shape_class = experiment.classes()[names.index(BUCKET.name)]
    vae = jax.jit(lambda: make_vae(experiment, nnx.Rngs(0)))()
    channels = experiment.vae.channels
    measured = LatentStatistics(jnp.zeros(channels), jnp.ones(channels))
    grid, temporal = experiment.grid(BUCKET), experiment.vae.temporal

    @jax.jit
    def encode(batch: VideoBatch) -> Any:
        encoded = encode_batch(vae, measured, batch, experiment.dit.patch)
        return lay_out(encoded, grid, temporal, shape_class.tokens)

    batch = clips(experiment, shape_class.rows)
    kept = encode(batch) if stage.encode_once else None
    return lambda: step(kept or encode(batch))


def milliseconds(cases: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """Median time of each case over rounds in which all take their turn."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(ROUNDS + 1):
        for name, case in cases.items():
            started = time.perf_counter()
            jax.block_until_ready(case())
            if number:  # the first round compiles
                times[name].append(1e3 * (time.perf_counter() - started))
    return {name: round(statistics.median(values), 1) for name, values in times.items()}


def main() -> None:
    """Measures, prints and writes."""
    with jax.set_mesh(make_mesh(load_experiment("demo").mesh)):
        found = milliseconds(
            {
                "vae, direct convolutions": vae_case("vae.convolution=direct"),
                "vae, matmul convolutions": vae_case(),
                "vae, matmul, adamw": vae_case("vae_stage.training.optimizer.method=adamw"),
                "dit, encoding each batch": dit_case("dit_stage.encode_once=False"),
                "dit, latents made once": dit_case(),
                "dit, once, adamw": dit_case("dit_stage.training.optimizer.method=adamw"),
            }
        )
    for name, value in found.items():
        print(f"{name:28} {value:7.1f} ms")
    result = {
        "command": "python -m benchmarks.demo_step",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores, {jax.devices()[0].device_kind}",
        "versions": {"jax": jax.__version__, "python": sys.version.split()[0]},
        "milliseconds_a_step": found,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
