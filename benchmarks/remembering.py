"""What remembering given tokens saves in sampling, and what keeping them apart costs in training.

    python -m benchmarks.remembering

A clip of 17 frames of 256 x 256 pixels, 5 latent frames of 16 x 16 tokens, by an untrained
transformer (times do not depend on weights) in 10 steps with guidance; 1 to 4 of its latent frames
are given, beside a model whose given tokens are not apart. And forward and backward of the same
rows in both. Turns are taken, and the least of each counts, in processor time. Writes
benchmarks/results/remembering.json.
"""

import dataclasses
import datetime
import functools
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from sora_jax.data.tokenizer import Tokenizer
from sora_jax.diffusion.times import TimesConfig
from sora_jax.models.dit import DiT, DiTConfig
from sora_jax.models.generator import Generator
from sora_jax.models.latents import LatentStatistics, token_coordinates
from sora_jax.models.patches import Grid
from sora_jax.models.text import TextConfig
from sora_jax.models.vae import VAE, VAEConfig
from sora_jax.sample.denoise import SamplingConfig, sample_tokens
from sora_jax.sample.generate import Sampler
from sora_jax.sample.requests import Request
from sora_jax.sample.tasks import extend
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.types import Layout, Text

RESULT = Path(__file__).parent / "results" / "remembering.json"
ROUNDS = 2
CHANNELS = 16
TIMES = TimesConfig()
TEXT = TextConfig(depth=1, width=128, heads=4)
DIT = DiTConfig(depth=4, width=256, heads=4, patch=2, given_apart=True)
PLAIN = Request("a red circle", frames=17, height=256, width=256, fps=16.0, seed=0)
GRID = Grid(5, 16, 16)


def make_sampler(dit: DiTConfig) -> Sampler:
    @jax.jit
    def make() -> tuple[Generator, VAE]:
        vae = VAE(VAEConfig(CHANNELS, (16, 32), ((1, 4), (4, 2)), blocks=1), rngs=nnx.Rngs(0))
        kinds: dict[str, Any] = {"channels": CHANNELS, "vocabulary": 64}
        return Generator(dit, TEXT, **kinds, rngs=nnx.Rngs(1)), vae

    return Sampler(
        *make(),
        LatentStatistics(jnp.zeros(CHANNELS), jnp.ones(CHANNELS)),
        Tokenizer.train([PLAIN.prompt], vocabulary_size=64),
        text_length=16,
        times=TIMES,
        config=SamplingConfig(steps=10, rows=1),
        mesh=make_mesh(MeshConfig(), jax.devices()[:1]),
    )


def sampling_case(dit: DiTConfig, given: int) -> Callable[[], Any]:
    """The clip with so many latent frames given."""
    sampler = make_sampler(dit)
    video = np.random.default_rng(0).integers(0, 256, (17, 256, 256, 3), np.uint8)
    request = extend(PLAIN, video, 1 + 4 * (given - 1))
    size = sampler.size_of(request)
    assert size.remembered == (given if dit.given_apart else None)
    inputs = sampler.inputs(size, [request])
    return functools.partial(
        sample_tokens, sampler.models, inputs, size=size, times=TIMES, config=sampler.config
    )


def training_case(given_apart: bool) -> Callable[[], Any]:
    """Forward and backward of the clip, whose first two latent frames are given."""
    config = dataclasses.replace(DIT, given_apart=given_apart)
    model = jax.jit(lambda: DiT(config, CHANNELS, TEXT.width, rngs=nnx.Rngs(0)))()
    is_given = jnp.arange(GRID.tokens)[None] < 2 * GRID.height * GRID.width
    segments = jnp.ones((1, GRID.tokens), jnp.int32)
    layout = Layout(
        coordinates=token_coordinates(GRID, 4, jnp.full(1, 16.0)),
        segments=segments,
        level_index=is_given.astype(jnp.int32),
        noise_levels=jnp.array([[0.5, 0.0]]),
        level_segments=jnp.ones((1, 2), jnp.int32),
        given_segments=jnp.where(is_given, segments, 0),
    )
    tokens = jax.random.normal(jax.random.key(0), (1, GRID.tokens, CHANNELS * config.patch**2))
    text = Text(jnp.ones((1, 16, TEXT.width)), jnp.ones((1, 16), jnp.int32))
    gradient = jax.jit(jax.grad(lambda model: jnp.mean(model(tokens, layout, text) ** 2)))
    return lambda: gradient(model)


def processor_seconds(cases: dict[str, Callable[[], Any]]) -> dict[str, float]:
    """The least of each case over rounds in which all take their turn."""
    times: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(ROUNDS + 1):
        for name, case in cases.items():
            started = time.process_time()
            jax.block_until_ready(case())
            if number:  # the first round compiles
                times[name].append(time.process_time() - started)
    return {name: min(values) for name, values in times.items()}


def main() -> None:
    """Measures, prints and writes."""
    plain = dataclasses.replace(DIT, given_apart=False)
    cases = {f"{given} remembered": sampling_case(DIT, given) for given in range(1, GRID.frames)}
    with jax.set_mesh(make_mesh(MeshConfig(), jax.devices()[:1])):
        # Where nothing is remembered it takes as long however many are given.
        sampling = processor_seconds({"plain": sampling_case(plain, 1), **cases})
        training = processor_seconds({"apart": training_case(True), "not": training_case(False)})
    result = {
        "command": "python -m benchmarks.remembering",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores, {jax.devices()[0].device_kind}",
        "versions": {"jax": jax.__version__},
        "sampling_of_the_time_without": {
            f"{name}, of {GRID.frames} latent frames": round(sampling[name] / sampling["plain"], 3)
            for name in cases
        },
        "forward_and_backward_of_the_time_without": round(training["apart"] / training["not"], 3),
        "processor_seconds": {name: round(value, 2) for name, value in sampling.items()},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
