"""One update against the same update written in NumPy, and what randomness it is handed."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh

from sora_jax.errors import ConfigError
from sora_jax.sharding.rules import replicated, rows_in_parts, rows_sharding
from sora_jax.train.state import TrainState, init_state
from sora_jax.train.step import Moment, TrainStep
from tests.tiny import eight_device_mesh, one_device_mesh

RATE, DECAY = 0.1, 0.8


class Point(nnx.Module):
    """A vector."""

    def __init__(self, rngs: nnx.Rngs):
        self.place = nnx.Param(jax.random.normal(rngs.params(), (3,)), axes=(None,))


def distance(
    model: Point, batch: jax.Array, moment: Moment, rows: int
) -> tuple[jax.Array, dict[str, Any]]:
    error = model.place[...] - batch
    return jnp.sum(error**2), {"draw": jax.random.uniform(moment.key)}


STEP = jax.jit(TrainStep(distance, optax.sgd(RATE), DECAY))


def start() -> TrainState:
    return init_state(Point, optax.sgd(RATE), jax.random.key(0), one_device_mesh())


def test_updates_and_moving_average_follow_their_formulas() -> None:
    state = start()
    place = average = np.asarray(state.model.place[...], np.float64)
    np.testing.assert_array_equal(state.ema.place[...], state.model.place[...])
    for step in range(40):
        target = np.full(3, float(step))
        state, metrics = STEP(state, jnp.asarray(target, jnp.float32), jax.random.key(1))
        gradient = 2 * (place - target)
        np.testing.assert_allclose(metrics["loss"], np.sum((place - target) ** 2), rtol=1e-4)
        np.testing.assert_allclose(metrics["gradient_norm"], np.linalg.norm(gradient), rtol=1e-4)
        np.testing.assert_allclose(
            metrics["update_norm"], RATE * np.linalg.norm(gradient), rtol=1e-4
        )
        place = place - RATE * gradient
        decay = min(DECAY, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * place
        np.testing.assert_allclose(state.model.place[...], place, rtol=1e-4)
        np.testing.assert_allclose(state.ema.place[...], average, rtol=1e-4)
        assert int(state.step) == step + 1


def test_randomness_follows_the_step_and_the_key() -> None:
    draws = []
    for key in (1, 2):
        state = start()
        for _ in range(3):
            state, metrics = STEP(state, jnp.zeros(3), jax.random.key(key))
            draws.append(float(metrics["draw"]))
    assert len(set(draws)) == 6
    at_two = dataclasses.replace(start(), step=jnp.asarray(2))
    assert float(STEP(at_two, jnp.zeros(3), jax.random.key(1))[1]["draw"]) == draws[2]


def test_an_update_that_is_not_finite_is_skipped_and_counts_as_a_step() -> None:
    """By a loss that is none, or gradients that are none under a loss that is one."""
    optimizer = optax.adam(optax.linear_schedule(1.0, 0.0, 10))

    def loss(model: Point, batch: jax.Array, moment: Moment, rows: int) -> tuple[jax.Array, Any]:
        norm = jnp.sqrt(jnp.sum((model.place[...] - batch[0]) ** 2 * batch[1]))
        return norm + batch[2], {}

    schedule = optax.linear_schedule(1.0, 0.0, 10)
    step = jax.jit(TrainStep(loss, optimizer, DECAY, rate=schedule))
    state = init_state(Point, optimizer, jax.random.key(0), one_device_mesh())
    state, metrics = step(state, jnp.asarray([2.0, 1.0, 0.0]), jax.random.key(1))
    assert float(metrics["skipped"]) == 0
    assert float(metrics["learning_rate"]) == 1
    for broken in ([2.0, 1.0, np.inf], [2.0, 0.0, 0.0]):  # the square root's slope at 0
        after, metrics = step(state, jnp.asarray(broken), jax.random.key(1))
        assert float(metrics["skipped"]) == 1
        assert np.isfinite(broken[2]) == np.isfinite(metrics["loss"])
        kept = dataclasses.replace(after, step=state.step)
        for ours, theirs in zip(jax.tree.leaves(kept), jax.tree.leaves(state), strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert int(after.step) == int(state.step) + 1
        state = after
    state, metrics = step(state, jnp.asarray([2.0, 1.0, 0.0]), jax.random.key(1))
    assert float(metrics["skipped"]) == 0
    np.testing.assert_allclose(metrics["learning_rate"], 0.9)  # of the updates, not of the steps
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


class Plane(nnx.Module):
    """A linear map to a number."""

    def __init__(self, rngs: nnx.Rngs):
        self.slope = nnx.Param(jax.random.normal(rngs.params(), (4,)), axes=("embed",))


def residual(
    model: Plane, batch: jax.Array, moment: Moment, rows: int
) -> tuple[jax.Array, dict[str, Any]]:
    """Mean over rows, each with noise of its own: its last number says which row it is."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(moment.key, batch[:, 4].astype(int))
    noise = jax.vmap(jax.random.normal)(keys)
    error = (batch[:, :4] @ model.slope[...] + noise - batch[:, 0]) ** 2
    return jnp.mean(error), {"noise": jnp.mean(noise), "rows": jnp.float32(rows)}


def test_a_batch_in_parts_gives_the_update_of_the_whole() -> None:
    """Over replicas too, whose rows are apart; and no row moves to another device."""
    mesh = eight_device_mesh()
    rows = np.random.default_rng(0).normal(size=(16, 5)).astype(np.float32)
    rows[:, 4] = np.arange(16)

    def updated(mesh: Mesh, parts: int) -> Any:
        step = TrainStep(residual, optax.sgd(RATE), DECAY, parts=lambda batch: parts)
        with jax.set_mesh(mesh):
            state = init_state(Plane, step.optimizer, jax.random.key(0), mesh)
            batch = jax.device_put(rows, rows_sharding(mesh))
            key = jax.device_put(jax.random.key(1), replicated(mesh))
            run = jax.jit(step).lower(state, batch, key).compile()
            assert "all-to-all" not in str(run.as_text())
            state, metrics = run(state, batch, key)
        return {"slope": state.model.slope[...], **metrics}

    expected = updated(one_device_mesh(), 1)
    for where, parts in ((one_device_mesh(), 4), (mesh, 2), (mesh, 4)):
        found = updated(where, parts)
        assert found.keys() == expected.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)


def test_rows_that_do_not_divide_into_parts_are_told() -> None:
    with pytest.raises(ConfigError, match="6 rows on 1 devices do not divide into 4 parts"):
        rows_in_parts(jnp.zeros((6, 2)), 4)


def test_a_fresh_state_shares_no_buffer_so_that_all_of_it_can_be_donated() -> None:
    state = start()
    donating = jax.jit(STEP, donate_argnums=0)
    expected, _ = STEP(state, jnp.zeros(3), jax.random.key(1))
    found, _ = donating(state, jnp.zeros(3), jax.random.key(1))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)
