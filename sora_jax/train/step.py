"""The training step: loss, gradient, update, moving average. Pure; `loop.py` only schedules it."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jax.sharding import PartitionSpec
from jaxtyping import Array, ArrayLike, Float, Int, PRNGKeyArray

from sora_jax.sharding.rules import rows_in_parts
from sora_jax.train.state import TrainState

Metrics = dict[str, Array]
OF_THE_STEP = ("gradient_norm", "update_norm", "skipped", "learning_rate")
"""Metrics of a whole step; all others are of the loss, and of each micro-batch where a step has
several, with an axis over these before their own."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moment:
    """When a loss is taken: the step's own key, and the steps made before it."""

    key: PRNGKeyArray
    step: Int[ArrayLike, ""]


LossFunction = Callable[[Any, Any, Moment, int], tuple[Float[Array, ""], Metrics]]
"""Of a model, rows of a batch, the moment, and how many rows the whole batch has."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Sums:
    """What micro-batches have come to so far. Gradients and metrics have a leading axis over the
    mesh axis `replica`: between slices nothing is added up before the update."""

    gradients: Any
    metrics: dict[str, Float[Array, "replica micro_batches ..."]]
    count: Any  # Int[Array, ""], of micro-batches


def _whole(batch: Any) -> int:
    return 1


@dataclasses.dataclass(frozen=True)
class TrainStep:
    """What an update is, apart from what it is made on.

    `micro_batches` of a step may have different shapes; each counts the same, whatever its rows.
    `parts` says of a batch in how many turns its gradients are computed, so that only the
    activations of one are held; `loss` must be a mean over rows. `rate`: what the learning rate is
    after so many updates, for the log.

    Where the loss or the gradients' norm is not finite, the update is skipped: the step counts, and
    model, average and optimizer stay as they were, on every device by the same numbers.
    """

    loss: LossFunction
    optimizer: optax.GradientTransformation
    ema_decay: float
    micro_batches: int = 1
    parts: Callable[[Any], int] = _whole
    rate: optax.Schedule | None = None

    def __call__(
        self, state: TrainState, batch: Any, key: PRNGKeyArray
    ) -> tuple[TrainState, Metrics]:
        """One update on one batch. `key` is the run's; randomness follows the step and the
        examples."""
        if self.parts(batch) == 1:
            moment = _moment(key, state)
            gradients, metrics = self.gradients(state.model, batch, moment, _rows(batch))
        else:
            gradients, metrics = _mean_of_replicas(self._of_replicas(state, batch, key))
        return self._updated(state, gradients, metrics)

    def add(self, state: TrainState, sums: Sums, batch: Any, key: PRNGKeyArray) -> Sums:
        """The sums with a micro-batch more; every replica adds up its own rows alone."""
        gradients, metrics = self._of_replicas(state, batch, key)
        return Sums(
            jax.tree.map(jnp.add, sums.gradients, gradients),
            {
                name: lax.dynamic_update_index_in_dim(sums.metrics[name], own, sums.count, axis=1)
                for name, own in metrics.items()
            },
            sums.count + 1,
        )

    def close(self, state: TrainState, sums: Sums) -> tuple[TrainState, Sums, Metrics]:
        """The update on all micro-batches of the step, and sums to begin the next with."""
        gradients, metrics = _mean_of_replicas((sums.gradients, sums.metrics))
        gradients = jax.tree.map(lambda total: total / self.micro_batches, gradients)
        state, metrics = self._updated(state, gradients, metrics)
        return state, jax.tree.map(jnp.zeros_like, sums), metrics

    def gradients(self, model: Any, batch: Any, moment: Moment, rows: int) -> tuple[Any, Metrics]:
        """Gradients of the loss, and the metrics with it among them. `rows`: of the whole batch."""
        parts = self.parts(batch)
        if parts == 1:
            return self._gradients(model, batch, moment, rows)
        leaves, batch_of = jax.tree.flatten(batch)

        def of_part(leaves: list[Any]) -> tuple[Any, Metrics]:
            return self._gradients(model, jax.tree.unflatten(batch_of, leaves), moment, rows)

        def add(total: Any, leaves: list[Any]) -> tuple[Any, None]:
            return jax.tree.map(jnp.add, total, of_part(leaves)), None

        turns = [rows_in_parts(leaf, parts) for leaf in leaves]
        shapes = jax.eval_shape(of_part, [turn[0] for turn in turns])
        zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)
        total, _ = lax.scan(add, zeros, turns)
        return jax.tree.map(lambda leaf: leaf / parts, total)

    def _gradients(self, model: Any, batch: Any, moment: Moment, rows: int) -> tuple[Any, Metrics]:
        grad = jax.value_and_grad(self.loss, has_aux=True)
        (loss, metrics), gradients = grad(model, batch, moment, rows)
        return gradients, {"loss": loss, **metrics}

    def _of_replicas(self, state: TrainState, batch: Any, key: PRNGKeyArray) -> tuple[Any, Metrics]:
        """Gradients and metrics of a batch, each by replica: of its own rows alone, so that nothing
        passes between."""
        rows = _rows(batch)

        def of_a_replica(model: Any, batch: Any, moment: Moment) -> tuple[Any, Metrics]:
            one = self.gradients(model, batch, moment, rows)
            return jax.tree.map(lambda new: new[None], one)

        split, whole = PartitionSpec("replica"), PartitionSpec()
        by_replica = jax.shard_map(
            of_a_replica,
            in_specs=(whole, split, whole),
            out_specs=split,
            axis_names={"replica"},
            check_vma=False,
        )
        found: tuple[Any, Metrics] = by_replica(state.model, batch, _moment(key, state))
        return found

    def _updated(
        self, state: TrainState, gradients: Any, metrics: Metrics
    ) -> tuple[TrainState, Metrics]:
        # A branch, not a choice between two states, which would hold both and copy one.
        norm = optax.tree.norm(gradients)
        finite = jnp.isfinite(norm) & jnp.all(jnp.isfinite(metrics["loss"]))
        new, update_norm = lax.cond(finite, self._changed, _unchanged, state, gradients)
        of_the_step = {
            "gradient_norm": norm,
            "update_norm": update_norm,
            "skipped": 1.0 - finite,
        }
        if self.rate is not None:
            of_the_step["learning_rate"] = self.rate(_updates_made(state))
        return new, {**metrics, **of_the_step}

    def _changed(self, state: TrainState, gradients: Any) -> tuple[TrainState, Float[Array, ""]]:
        """The state after an update, and the update's norm. The moving average looks back less at
        first: decay = min(ema_decay, (1 + step) / (10 + step))."""
        updates, opt_state = self.optimizer.update(gradients, state.opt_state, state.model)
        model = optax.apply_updates(state.model, updates)
        decay = jnp.minimum(self.ema_decay, (1.0 + state.step) / (10.0 + state.step))
        ema = jax.tree.map(lambda old, new: old + (1.0 - decay) * (new - old), state.ema, model)
        return TrainState(state.step + 1, model, ema, opt_state), optax.tree.norm(updates)


def _unchanged(state: TrainState, gradients: Any) -> tuple[TrainState, Float[Array, ""]]:
    del gradients
    return dataclasses.replace(state, step=state.step + 1), jnp.zeros(())


def _rows(batch: Any) -> int:
    return jax.tree.leaves(batch)[0].shape[0]


def _mean_of_replicas(by_replica: tuple[Any, Metrics]) -> tuple[Any, Metrics]:
    mean: tuple[Any, Metrics] = jax.tree.map(lambda total: jnp.mean(total, 0), by_replica)
    return mean


def _updates_made(state: TrainState) -> Int[Array, ""]:
    """Steps less those skipped, as the optimizer counts them, in one or several places alike."""
    _, count = optax.tree.get_all_with_path(state.opt_state, "count")[0]
    return count


def _moment(key: PRNGKeyArray, state: TrainState) -> Moment:
    return Moment(jax.random.fold_in(key, state.step), state.step)
