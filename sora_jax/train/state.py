"""TrainState, and its initialisation straight into its shardings."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array, Int, PRNGKeyArray

from sora_jax.sharding.rules import parameter_shardings


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything an update reads and writes. Model, EMA and moments are trees of the same modules,
    in float32."""

    step: Int[Array, ""]
    model: Any
    ema: Any
    opt_state: Any


def init_state(
    make_model: Callable[[nnx.Rngs], Any],
    optimizer: optax.GradientTransformation,
    key: PRNGKeyArray,
    mesh: Mesh,
) -> TrainState:
    """A fresh state, made sharded: no device ever holds all of it.

    Numbers do not depend on the mesh. Without explicit output shardings the Adam moments would
    come out replicated.
    """

    def make() -> TrainState:
        model = make_model(nnx.Rngs(key))
        ema = jax.tree.map(jnp.copy, model)
        return TrainState(jnp.zeros((), jnp.int32), model, ema, optimizer.init(model))

    shardings = parameter_shardings(jax.eval_shape(make), mesh)
    with jax.set_mesh(mesh):
        return jax.jit(make, out_shardings=shardings)()


def abstract_state(
    make_model: Callable[[nnx.Rngs], Any], optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """The shapes, dtypes and shardings of `init_state`'s result, without making it: what a
    checkpoint is restored into."""

    def make() -> TrainState:
        model = make_model(nnx.Rngs(0))
        return TrainState(jnp.zeros((), jnp.int32), model, model, optimizer.init(model))

    shapes = jax.eval_shape(make)
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding),
        shapes,
        parameter_shardings(shapes, mesh),
    )
