"""Programs are made before the first step; micro-batches come to the update of one large batch."""

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from sora_jax.diffusion.loss import DiffusionConfig
from sora_jax.pod.collectives import axes_of, kind_of
from sora_jax.pod.groups import groups_of
from sora_jax.pod.hlo import parse_module
from sora_jax.programs import step_of
from sora_jax.sharding.mesh import mesh_for_rows
from sora_jax.sharding.rules import replicated, rows_sharding
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.optimizer import OptimizerConfig
from sora_jax.train.programs import Update, lower_close, lower_step
from sora_jax.train.run import TrainConfig
from sora_jax.train.state import TrainState
from sora_jax.train.step import Moment, TrainStep
from sora_jax.types import LatentBatch
from tests.tiny import eight_device_mesh, latent_batch, one_device_mesh
from tests.train.test_meshes import DIT, fresh_state

BATCH, LONGER = latent_batch(0), latent_batch(1, tokens=24)


def step_with(micro_batches: int) -> TrainStep:
    # So slow that the second step's gradients are those of a fresh model.
    optimizer = OptimizerConfig(peak_rate=1e-9, warmup_steps=0)
    training = TrainConfig(10, optimizer, micro_batches=micro_batches)
    return step_of(training, diffusion_loss(DiffusionConfig()))


def start(step: TrainStep, mesh: Mesh) -> tuple[TrainState, Any]:
    """A fresh state, and the run's key."""
    key = jax.device_put(jax.random.key(1), replicated(mesh))
    return fresh_state(DIT, step.optimizer, mesh), key


def by_hand(batches: tuple[LatentBatch, ...], steps: int) -> Iterator[dict[str, Any]]:
    """Losses of the batches and norm of the mean gradient of a fresh model, at the first steps."""
    step = step_with(1)
    state, run_key = start(step, one_device_mesh())
    gradients = jax.jit(step.gradients, static_argnames="rows")
    for number in range(steps):
        now = Moment(jax.random.fold_in(run_key, number), number)
        found = [gradients(state.model, each, now, rows=len(each.example_id)) for each in batches]
        pairs = zip(*[jax.tree.leaves(gradient) for gradient, _ in found], strict=True)
        mean = [np.mean([np.asarray(leaf) for leaf in leaves], 0) for leaves in pairs]
        norm = np.sqrt(sum(float(np.sum(leaf**2)) for leaf in mean))
        losses = [float(metrics["loss"]) for _, metrics in found]
        yield {"gradient_norm": float(norm), "loss": losses}


def test_micro_batches_of_any_shapes_count_the_same() -> None:
    """On a mesh of all kinds of axes, one with more rows that fewer devices share; twice, since a
    step must not begin with the sums of one."""
    batches = (latent_batch(0, rows=8), LONGER)
    expected = list(by_hand(batches, steps=2))
    mesh, step = eight_device_mesh(), step_with(2)
    with jax.set_mesh(mesh):
        state, key = start(step, mesh)
        meshes = (mesh_for_rows(mesh, 1), mesh)
        spread = [
            jax.device_put(batch, rows_sharding(its))
            for batch, its in zip(batches, meshes, strict=True)
        ]
        update = Update(step, state, spread, key)
        assert update.count == 3
        for wanted in expected:
            with jax.transfer_guard("disallow"):
                state, metrics = update(state, spread, key)
            for name, value in wanted.items():
                np.testing.assert_allclose(metrics[name], value, rtol=1e-5, err_msg=name)
    assert int(state.step) == 2


def crossing(compiled: jax.stages.Compiled, mesh: Mesh) -> Iterator[str]:
    """Kinds of the collectives that pass data from one replica to another."""
    module = parse_module(str(compiled.as_text()))
    for computation in module.computations.values():
        for instruction in computation.instructions.values():
            kind = kind_of(instruction)
            if kind and "replica" in axes_of(groups_of(instruction, mesh.size), mesh):
                yield kind


def test_between_replicas_only_the_close_of_a_step_moves_anything() -> None:
    mesh, step = eight_device_mesh(), step_with(2)
    with jax.set_mesh(mesh):
        state, key = start(step, mesh)
        batch = jax.device_put(BATCH, rows_sharding(mesh))
        assert not list(crossing(lower_step(step, state, batch, key).compile(), mesh))
        close = set(crossing(lower_close(step, state, batch, key).compile(), mesh))
        assert close == {"all-reduce"}
        whole = lower_step(step_with(1), state, batch, key).compile()
        assert "all-reduce" in set(crossing(whole, mesh))
