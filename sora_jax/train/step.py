"""The training step: loss, gradient, update, moving average. Pure; `loop.py` only schedules it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from sora_jax.train.state import TrainState

Metrics = dict[str, Float[Array, ""]]
LossFunction = Callable[[Any, Any, PRNGKeyArray], tuple[Float[Array, ""], Metrics]]
StepFunction = Callable[[TrainState, Any, PRNGKeyArray], tuple[TrainState, Metrics]]


def train_step(
    state: TrainState,
    batch: Any,
    key: PRNGKeyArray,
    *,
    loss_function: LossFunction,
    optimizer: optax.GradientTransformation,
    ema_decay: float,
) -> tuple[TrainState, Metrics]:
    """One update on one batch. `key` is the run's; randomness follows the step and the examples.

    The moving average looks back less at first: decay = min(ema_decay, (1 + step) / (10 + step)).
    """
    grad = jax.value_and_grad(loss_function, has_aux=True)
    (loss, metrics), gradients = grad(state.model, batch, jax.random.fold_in(key, state.step))
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.model)
    model = optax.apply_updates(state.model, updates)
    decay = jnp.minimum(ema_decay, (1.0 + state.step) / (10.0 + state.step))
    ema = jax.tree.map(lambda old, new: old + (1.0 - decay) * (new - old), state.ema, model)
    metrics = {
        "loss": loss,
        "gradient_norm": optax.tree.norm(gradients),
        "update_norm": optax.tree.norm(updates),
        **metrics,
    }
    return TrainState(state.step + 1, model, ema, opt_state), metrics


def compiled(step: StepFunction, state: TrainState) -> Any:
    """`step` under jit, over the memory of the state it is given. The state, or its shapes, keeps
    its layout, whatever the compiler would prefer."""
    shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
    return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))
