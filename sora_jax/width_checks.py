"""Whether rates transfer over width: one transformer, at several widths, in both parametrisations.

Both checks (arXiv:2203.03466, appendices D and F) train an experiment's transformer and its text
encoder, with its optimizer and objective, on clips that are made up: a walk in a few dimensions,
seen through a fixed map, about a place that the caption tells. So they need no data and no
autoencoder, and small widths say it all. All else is the experiment's.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from sora_jax.data.buckets import Bucket
from sora_jax.errors import ConfigError
from sora_jax.experiment import Experiment
from sora_jax.models.latents import lay_out
from sora_jax.networks import make_generator
from sora_jax.programs import step_of
from sora_jax.scaling.width_transfer import Basins, Coordinates
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.state import TrainState
from sora_jax.train.step import Moment
from sora_jax.types import EncodedBatch, LatentBatch, Text

SOURCES = 4  # dimensions of the walk
HELD_OUT_BATCHES = 8
SEEDS = 4  # that sizes of activations are means over: narrow networks differ
Say = Callable[[str], None]


def at_width(experiment: Experiment, width: int, base_width: int | None) -> Experiment:
    """The experiment with its transformer so wide, in heads as wide as they were."""
    head_width = experiment.dit.width // experiment.dit.heads
    if width % head_width:
        raise ConfigError(f"a width of {width} does not split into heads of width {head_width}")
    dit = dataclasses.replace(
        experiment.dit, width=width, heads=width // head_width, base_width=base_width
    )
    return dataclasses.replace(experiment, dit=dit)


def smallest_bucket(experiment: Experiment) -> Bucket:
    """Of the videos' buckets, if there are any, with nothing appended."""
    buckets = [each for each in experiment.data.buckets if not each.appended]
    if not buckets:
        raise ConfigError(f"{experiment.name} has no bucket without appended clips")
    videos = [each for each in buckets if each.frames > 1]
    return min(videos or buckets, key=experiment.tokens)


def made_up_clips(experiment: Experiment, rows: int, key: PRNGKeyArray) -> LatentBatch:
    """Clips of the smallest bucket, which follow from the key."""
    grid = experiment.grid(smallest_bucket(experiment))
    data, channels = experiment.data, experiment.vae.channels * experiment.dit.patch**2
    walk, still, words, ids = jax.random.split(key, 4)
    to_channels, place_of = jax.random.split(jax.random.key(0))
    text: Any = jax.random.randint(words, (rows, data.text_length), 2, data.vocabulary_size)
    table = jax.random.normal(place_of, (data.vocabulary_size, SOURCES))
    steps = jax.random.normal(walk, (rows, grid.frames, 1, SOURCES))
    picture = jax.random.normal(still, (rows, 1, grid.height * grid.width, SOURCES))
    sources = jnp.cumsum(steps, 1) + picture + table[text[:, 0]][:, None, None]
    mixed = sources @ jax.random.normal(to_channels, (SOURCES, channels)) / SOURCES**0.5
    if experiment.text.source == "given":
        meanings = jax.random.normal(place_of, (data.vocabulary_size, experiment.text.width))
        text = Text(meanings[text], jnp.ones_like(text))
    batch = EncodedBatch(
        latents=jnp.tanh(mixed).reshape(rows, grid.tokens, channels),
        text=text,
        fps=jnp.full(rows, float(data.fps)),
        example_id=jax.random.randint(ids, (rows,), 0, 2**30),
    )
    return lay_out(batch, grid, experiment.vae.temporal, grid.tokens)


def trained(
    experiment: Experiment,
    rows: int,
    steps: int,
    rate: Array,
    seed: PRNGKeyArray,
    *,
    is_repeated: bool = False,
    **changes: Any,
) -> TrainState:
    """The state after so many steps at a peak rate, which may be traced: one program for all.
    `is_repeated`: each step sees the clips and the noise of the first. `changes`: to the
    optimizer's config."""
    stage = experiment.dit_stage
    optimizer = dataclasses.replace(stage.training.optimizer, peak_rate=1.0, **changes)
    training = dataclasses.replace(
        stage.training, steps=steps, optimizer=optimizer, micro_batches=1
    )
    step = step_of(training, diffusion_loss(stage.diffusion))
    # An update is its rate times what does not depend on it.
    step = dataclasses.replace(
        step, optimizer=optax.chain(step.optimizer, optax.scale(rate)), rate=None
    )
    for_model, for_data, for_step = jax.random.split(seed, 3)
    model = make_generator(experiment, nnx.Rngs(for_model))
    state = TrainState(jnp.zeros((), jnp.int32), model, model, step.optimizer.init(model))

    def update(number: Array, state: TrainState) -> TrainState:
        if is_repeated:
            number = jnp.zeros_like(number)
        clips = made_up_clips(experiment, rows, jax.random.fold_in(for_data, number))
        return step(dataclasses.replace(state, step=number), clips, for_step)[0]

    return jax.lax.fori_loop(0, steps, update, state)


class Watched(nnx.Module):
    """A part of a network that tells the mean size of what it gives at every call."""

    def __init__(self, part: Any, name: str, tell: Callable[[str, Any], None]):
        self.part, self.name, self.tell = part, name, tell

    def __call__(self, *inputs: Any) -> Array:
        given: Array = self.part(*inputs)
        size = jnp.mean(jnp.abs(given.astype(jnp.float32)))
        jax.debug.callback(lambda size: self.tell(self.name, size), size, ordered=True)
        return given


def activations(
    experiment: Experiment, rows: int, steps: int, rate: float, seeds: int
) -> dict[str, float]:
    """Mean |activation| of the transformer's parts after so many updates at a constant rate, over
    so many runs, on the batch that all updates are for: what another batch meets is noise, which
    falls with the width and would hide what grows."""
    found: dict[str, list[float]] = {}

    def tell(name: str, size: Any) -> None:
        found.setdefault(name, []).append(float(size))

    @jax.jit
    def run(rate: Array, seed: PRNGKeyArray) -> Array:
        constant = {"warmup_steps": 0, "final_rate": 1.0}
        model = trained(experiment, rows, steps, rate, seed, is_repeated=True, **constant).model
        for name, part in list(vars(model.dit).items()):
            if isinstance(part, nnx.Module):
                setattr(model.dit, name, Watched(part, name, tell))
        _, for_data, for_step = jax.random.split(seed, 3)
        clips = made_up_clips(experiment, rows, jax.random.fold_in(for_data, 0))
        loss = diffusion_loss(experiment.dit_stage.diffusion)
        return loss(model, clips, Moment(for_step, 0), rows)[0]

    for seed in jax.random.split(jax.random.key(experiment.seed), seeds):
        jax.block_until_ready(run(jnp.float32(rate), seed))
    jax.effects_barrier()
    means = {name: np.reshape(sizes, (seeds, -1)).mean(0) for name, sizes in found.items()}
    return {
        name if len(sizes) == 1 else f"{name} {number}": float(size)
        for name, sizes in means.items()
        for number, size in enumerate(sizes, 1)
    }


def _loss(experiment: Experiment, model: Any, rows: int, key: PRNGKeyArray) -> Float[Array, ""]:
    """Of clips that no training sees: the same, in the same noise, for all networks."""
    for_data, for_noise = jax.random.split(jax.random.fold_in(key, 1))
    clips = made_up_clips(experiment, rows, for_data)
    loss = diffusion_loss(experiment.dit_stage.diffusion)
    return loss(model, clips, Moment(for_noise, 0), rows)[0]


def check_coordinates(
    experiment: Experiment,
    widths: Sequence[int],
    rate: float,
    steps: int,
    rows: int,
    say: Say,
    seeds: int = SEEDS,
) -> Coordinates:
    """Sizes of activations at each width, in both parametrisations."""

    def measure(wide: Experiment) -> dict[str, float]:
        return activations(wide, rows, steps, rate, seeds)

    found = _by_parametrisation(experiment, widths, measure, say)
    sizes = {
        name: {
            part: tuple(each[part] for each in by_width.values()) for part in by_width[widths[0]]
        }
        for name, by_width in found.items()
    }
    return Coordinates(tuple(widths), sizes)


def check_rates(
    experiment: Experiment,
    widths: Sequence[int],
    rates: Sequence[float],
    steps: int,
    rows: int,
    say: Say,
) -> Basins:
    """Held-out losses at each width and rate, in both parametrisations; the rate warms up over a
    tenth of the steps."""

    def measure(wide: Experiment) -> tuple[float, ...]:
        loss_at = jax.jit(_loss_after(wide, rows, steps))
        return tuple(round(float(loss_at(jnp.float32(rate))), 5) for rate in rates)

    losses = _by_parametrisation(experiment, widths, measure, say)
    return Basins(tuple(widths), tuple(rates), losses)


def _by_parametrisation(
    experiment: Experiment, widths: Sequence[int], measure: Callable[[Experiment], Any], say: Say
) -> dict[str, dict[int, Any]]:
    """What is measured by muP and as usual at each width. The base is the least width, at which
    both are one network, measured once."""
    base = min(widths)
    found: dict[str, dict[int, Any]] = {"mup": {}, "standard": {}}
    for name, by_width in found.items():
        for width in widths:
            if name == "standard" and width == base:
                by_width[width] = found["mup"][width]
                continue
            base_width = base if name == "mup" else None
            by_width[width] = measure(at_width(experiment, width, base_width))
            say(f"{name}, width {width}: {by_width[width]}")
    return found


def _loss_after(experiment: Experiment, rows: int, steps: int) -> Callable[[Array], Array]:
    def loss_at(rate: Array) -> Array:
        seed = jax.random.key(experiment.seed)
        model = trained(experiment, rows, steps, rate, seed, warmup_steps=steps // 10).model
        keys = jax.random.split(jax.random.fold_in(seed, 1), HELD_OUT_BATCHES)
        return jnp.mean(jax.lax.map(lambda key: _loss(experiment, model, 4 * rows, key), keys))

    return loss_at
