"""An experiment's training step, and its programs: one a shape class, lowered without any data."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding

from sora_jax.data.buckets import ShapeClass
from sora_jax.experiment import Experiment
from sora_jax.networks import make_generator
from sora_jax.sharding.rules import replicated, rows_sharding
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.loop import TrainConfig
from sora_jax.train.optimizer import make_optimizer
from sora_jax.train.state import TrainState, abstract_state
from sora_jax.train.step import LossFunction, StepFunction, compiled, train_step
from sora_jax.types import LatentBatch


def step_of(
    training: TrainConfig, loss: LossFunction
) -> tuple[StepFunction, optax.GradientTransformation]:
    """The update of a stage, and the optimizer that its state is made for."""
    optimizer = make_optimizer(training.optimizer, training.steps)
    step = functools.partial(
        train_step, loss_function=loss, optimizer=optimizer, ema_decay=training.ema_decay
    )
    return step, optimizer


def lowered_step(
    experiment: Experiment, shape_class: ShapeClass, mesh: Mesh
) -> tuple[jax.stages.Lowered, TrainState]:
    """The transformer's training step on a class, ready to compile for `mesh`, whose devices need
    not exist; and the abstract state, laid out over the mesh, that it takes."""
    stage = experiment.dit_stage
    step, optimizer = step_of(stage.training, diffusion_loss(stage.diffusion))
    with jax.set_mesh(mesh):
        state = abstract_state(functools.partial(make_generator, experiment), optimizer, mesh)
        batch = abstract_batch(experiment, shape_class, mesh)
        key = jax.eval_shape(lambda: jax.random.key(0))
        key = jax.ShapeDtypeStruct(key.shape, key.dtype, sharding=replicated(mesh))
        return compiled(step, state).lower(state, batch, key), state


def abstract_batch(experiment: Experiment, shape_class: ShapeClass, mesh: Mesh) -> LatentBatch:
    """Shapes, dtypes and shardings of a batch of a class."""
    rows, tokens = shape_class.rows, shape_class.tokens
    sharding = rows_sharding(mesh)

    def of(dtype: Any, *shape: int) -> Any:
        return jax.ShapeDtypeStruct((rows, *shape), dtype, sharding=sharding)

    return LatentBatch(
        latents=of(jnp.float32, tokens, experiment.dit.patch**2 * experiment.vae.channels),
        coordinates=of(jnp.float32, tokens, 3),
        segments=of(jnp.int32, tokens),
        frames=of(jnp.int32, tokens),
        text=of(jnp.int32, experiment.data.text_length),
        example_id=of(jnp.int32),
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
