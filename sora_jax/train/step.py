"""The training step: loss, gradient, update, moving average. Pure; `loop.py` only schedules it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, PRNGKeyArray

from sora_jax.train.state import TrainState

Metrics = dict[str, Float[Array, ""]]
LossFunction = Callable[[Any, Any, PRNGKeyArray], tuple[Float[Array, ""], Metrics]]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sums:
    """What micro-batches have come to so far. Every array has a leading axis over the mesh axis
    `replica`: between slices nothing is added up before the update."""

    gradients: Any
    metrics: dict[str, Float[Array, " replica"]]


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """What an update is, apart from what it is made on.

    `micro_batches` of a step may have different shapes; each counts the same, whatever its rows.
    """

    loss: LossFunction
    optimizer: optax.GradientTransformation
    ema_decay: float
    micro_batches: int = 1

    def __call__(
        self, state: TrainState, batch: Any, key: PRNGKeyArray
    ) -> tuple[TrainState, Metrics]:
        """One update on one batch. `key` is the run's; randomness follows the step and the
        examples."""
        gradients, metrics = self.gradients(state.model, batch, _key_of(key, state))
        return self._updated(state, gradients, metrics)

    def add(self, state: TrainState, sums: Sums, batch: Any, key: PRNGKeyArray) -> Sums:
        """The sums with a micro-batch more; every replica adds up its own rows alone."""

        def of_a_replica(model: Any, sums: Sums, batch: Any, key: PRNGKeyArray) -> Sums:
            one = Sums(*self.gradients(model, batch, key))
            return jax.tree.map(lambda total, new: total + new[None], sums, one)

        split, whole = PartitionSpec("replica"), PartitionSpec()
        add = jax.shard_map(
            of_a_replica,
            in_specs=(whole, split, split, whole),
            out_specs=split,
            axis_names={"replica"},
            check_vma=False,
        )
        return add(state.model, sums, batch, _key_of(key, state))

    def close(self, state: TrainState, sums: Sums) -> tuple[TrainState, Sums, Metrics]:
        """The update on all micro-batches of the step, and sums to begin the next with."""
        mean = jax.tree.map(lambda total: jnp.mean(total, 0) / self.micro_batches, sums)
        state, metrics = self._updated(state, mean.gradients, mean.metrics)
        return state, jax.tree.map(jnp.zeros_like, sums), metrics

    def gradients(self, model: Any, batch: Any, key: PRNGKeyArray) -> tuple[Any, Metrics]:
        """Gradients of the loss, and the metrics with it among them."""
        grad = jax.value_and_grad(self.loss, has_aux=True)
        (loss, metrics), gradients = grad(model, batch, key)
        return gradients, {"loss": loss, **metrics}

    def _updated(
        self, state: TrainState, gradients: Any, metrics: Metrics
    ) -> tuple[TrainState, Metrics]:
        """The moving average looks back less at first:
        decay = min(ema_decay, (1 + step) / (10 + step))."""
        updates, opt_state = self.optimizer.update(gradients, state.opt_state, state.model)
        model = optax.apply_updates(state.model, updates)
        decay = jnp.minimum(self.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda old, new: old + (1.0 - decay) * (new - old), state.ema, model)
        norms = {
            "gradient_norm": optax.tree.norm(gradients),
            "update_norm": optax.tree.norm(updates),
        }
        return TrainState(state.step + 1, model, ema, opt_state), {**metrics, **norms}


def _key_of(key: PRNGKeyArray, state: TrainState) -> PRNGKeyArray:
    return jax.random.fold_in(key, state.step)
