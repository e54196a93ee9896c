"""An experiment's training step, and its programs: one a shape class, lowered without any data."""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding

from sora_jax.data.buckets import ShapeClass
from sora_jax.errors import ConfigError
from sora_jax.experiment import Experiment, VAEStage
from sora_jax.models.judged_vae import parts_of
from sora_jax.networks import make_generator
from sora_jax.sharding.mesh import mesh_for_rows
from sora_jax.sharding.rules import replicated, rows_sharding
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.optimizer import by_part, make_optimizer, rate_schedule
from sora_jax.train.programs import lower_close, lower_step
from sora_jax.train.run import TrainConfig
from sora_jax.train.state import TrainState, abstract_state
from sora_jax.train.step import LossFunction, TrainStep
from sora_jax.train.vae_losses import vae_loss
from sora_jax.types import LatentBatch, Text


def step_of(
    training: TrainConfig, loss: LossFunction, classes: Sequence[ShapeClass] = ()
) -> TrainStep:
    """The update of a stage. `classes`: of token rows, where batches are rows of tokens."""
    step = TrainStep(
        loss,
        make_optimizer(training.optimizer, training.steps),
        training.ema_decay,
        training.micro_batches,
        rate=rate_schedule(training.optimizer, training.steps),
    )
    if not classes:
        return step
    parts = {shape_class.tokens: shape_class.parts for shape_class in classes}
    return dataclasses.replace(step, parts=lambda batch: parts[batch.segments.shape[1]])


def vae_step(stage: VAEStage) -> TrainStep:
    """The update of the autoencoder, and of what judges it.

    Raises:
        ConfigError: an adversarial loss with micro-batches.
    """
    loss = stage.loss
    if loss.adversarial is not None and stage.training.micro_batches > 1:
        raise ConfigError(
            "vae_stage: an adversarial loss is weighed over a whole batch, so it takes no "
            "micro_batches: set them to 1, or give pixel_frames more"
        )
    step = step_of(stage.training, vae_loss(loss))
    if not loss.is_judged:
        return step
    optimizers = {"vae": step.optimizer}
    if loss.adversarial is not None:
        own = loss.adversarial.optimizer
        optimizers["discriminator"] = make_optimizer(own, stage.training.steps)
    return dataclasses.replace(step, optimizer=by_part(optimizers, parts_of))


def lowered_step(
    experiment: Experiment, shape_class: ShapeClass, mesh: Mesh
) -> tuple[list[tuple[jax.stages.Lowered, int]], TrainState]:
    """The programs of the transformer's training step on a class, and how often each runs, ready to
    compile for `mesh`, whose devices need not exist; and the abstract state, laid out over the
    mesh, that they take. All of a step's micro-batches are of the class."""
    stage = experiment.dit_stage
    step = step_of(stage.training, diffusion_loss(stage.diffusion), [shape_class])
    with jax.set_mesh(mesh):
        make_model = functools.partial(make_generator, experiment)
        state = abstract_state(make_model, step.optimizer, mesh)
        batch = abstract_batch(experiment, shape_class, mesh)
        inputs = (step, state, batch, abstract_key(mesh))
        programs = [(lower_step(*inputs), step.micro_batches)]
        if step.micro_batches > 1:
            programs.append((lower_close(*inputs), 1))
        return programs, state


def abstract_key(mesh: Mesh) -> Any:
    """The run's key, whole on every device."""
    key = jax.eval_shape(lambda: jax.random.key(0))
    return jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh))


def abstract_batch(experiment: Experiment, shape_class: ShapeClass, mesh: Mesh) -> LatentBatch:
    """Shapes, dtypes and shardings of a batch of a class."""
    rows, tokens = shape_class.rows, shape_class.tokens
    sharding = rows_sharding(mesh_for_rows(mesh, shape_class.context))

    def of(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding)

    length = shape_class.clips * experiment.data.text_length
    text = of(jnp.int32, length)
    if experiment.text.source == "given":
        text = Text(of(jnp.bfloat16, length, experiment.text.width), text)

    return LatentBatch(
        latents=of(jnp.float32, tokens, experiment.dit.patch**2 * experiment.vae.channels),
        coordinates=of(jnp.float32, tokens, 3),
        segments=of(jnp.int32, tokens),
        frames=of(jnp.int32, tokens),
        appended=of(jnp.int32, tokens),
        text=text,
        example_id=of(jnp.int32, shape_class.clips),
    )


def bytes_by_kind(state: TrainState) -> dict[str, int]:
    """Bytes on each device of the state's parts, as they are laid out."""

    return {
        "parameters": bytes_of(state.model),
        "ema": bytes_of(state.ema),
        "optimizer": bytes_of(state.opt_state),
    }


def bytes_of(tree: Any) -> int:
    """Bytes on each device of abstract arrays, as they are laid out."""
    return sum(_shard_bytes(leaf, leaf.sharding) for leaf in jax.tree.leaves(tree))


def _shard_bytes(leaf: jax.ShapeDtypeStruct, sharding: NamedSharding) -> int:
    return math.prod(sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
