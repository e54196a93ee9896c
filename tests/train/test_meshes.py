"""Loss and gradients are the same on every mesh, by every method of context and every policy of
memory."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh

from sora_jax.data.pipeline import own_rows
from sora_jax.diffusion.loss import DiffusionConfig
from sora_jax.models.dit import DiTConfig
from sora_jax.models.generator import Generator
from sora_jax.nn.attention import AttentionConfig
from sora_jax.nn.stack import Remat
from sora_jax.prepare import to_devices
from sora_jax.sharding.mesh import MeshConfig, make_mesh, mesh_for_rows
from sora_jax.sharding.rules import replicated, rows_sharding
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.programs import Update
from sora_jax.train.state import TrainState, abstract_state
from sora_jax.train.step import TrainStep
from tests.tiny import TEXT, VAE, VOCABULARY, latent_batch

DIT = DiTConfig(depth=2, width=64, heads=4, patch=1, rope_theta=100.0)
ROWS = 8


def make_generator(config: DiTConfig, rngs: nnx.Rngs) -> Generator:
    """With a last layer that is not zero, so that a first update reaches every parameter."""
    generator = Generator(config, TEXT, channels=VAE.channels, vocabulary=VOCABULARY, rngs=rngs)
    for kernel in (generator.dit.out.kernel, generator.dit.modulation.kernel):
        kernel[...] = 0.1 * jax.random.normal(jax.random.key(2), kernel[...].shape)
    return generator


@functools.cache
def parameters(depth: int) -> list[np.ndarray]:
    """Those of a fresh model, which no mesh and no way to compute it changes: made once."""
    config = dataclasses.replace(DIT, depth=depth)
    made = jax.jit(lambda: make_generator(config, nnx.Rngs(jax.random.key(0))))()
    return [np.asarray(leaf) for leaf in jax.tree.leaves(made)]


def fresh_state(
    config: DiTConfig, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """What `init_state` makes, without compiling it for the mesh: optimizers start with zeros."""

    def placed(shape: jax.ShapeDtypeStruct, values: np.ndarray | None = None) -> jax.Array:
        values = np.zeros(shape.shape, shape.dtype) if values is None else values
        return jax.make_array_from_callback(shape.shape, shape.sharding, lambda part: values[part])

    state = abstract_state(functools.partial(make_generator, config), optimizer, mesh)
    structure = jax.tree.structure(state.model)
    given = structure.unflatten(parameters(config.depth))
    return TrainState(
        step=placed(state.step),
        model=jax.tree.map(placed, state.model, given),
        ema=jax.tree.map(placed, state.ema, given),
        opt_state=jax.tree.map(placed, state.opt_state),
    )


def updated(
    config: DiTConfig, mesh: Mesh, parts: int = 1, context: int | None = None
) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    """Metrics of one step, and the gradients: what plain descent at a rate of 1 took away. `parts`
    and `context` as of a shape class."""
    loss = diffusion_loss(DiffusionConfig())
    step = TrainStep(loss, optax.sgd(1.0), ema_decay=0.9, parts=lambda batch: parts)
    with jax.set_mesh(mesh):
        state = fresh_state(config, step.optimizer, mesh)
        batch = on_devices(latent_batch(0, rows=ROWS), mesh_for_rows(mesh, context))
        key = jax.device_put(jax.random.key(1), replicated(mesh))
        state, metrics = Update(step, state, [batch], key)(state, [batch], key)
        before = parameters(config.depth)
        gradients = [old - new for old, new in zip(before, whole(state.model), strict=True)]
    return {name: np.asarray(value) for name, value in metrics.items()}, gradients


def on_devices(batch: Any, mesh: Mesh) -> Any:
    """The batch, of which every process gives the rows that its devices hold."""
    rows = own_rows(rows_sharding(mesh), ROWS)
    return to_devices(jax.tree.map(lambda array: np.asarray(array)[rows], batch), mesh)


def whole(model: Any) -> list[np.ndarray]:
    """Every parameter, wherever its parts are."""
    if jax.process_count() == 1:  # nothing has to be compiled
        return [np.asarray(leaf) for leaf in jax.tree.leaves(model)]
    mesh = jax.tree.leaves(model)[0].sharding.mesh
    gathered = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(model)
    return [np.asarray(leaf.addressable_data(0)) for leaf in jax.tree.leaves(gathered)]


def check_equal(found: Any, expected: Any) -> None:
    for name, value in expected[0].items():
        assert found[0][name] == pytest.approx(value, rel=1e-5), name
    for gradient, right in zip(found[1], expected[1], strict=True):
        np.testing.assert_allclose(gradient, right, rtol=0, atol=1e-5 * np.abs(right).max() + 1e-6)


@functools.cache
def on_one_device() -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
    return updated(DIT, make_mesh(MeshConfig(), jax.devices()[:1]))


@pytest.mark.parametrize(
    ("sizes", "attention", "remat"),
    [
        ((1, 8, 1, 1), AttentionConfig(), "none"),
        ((2, 4, 1, 1), AttentionConfig(), "full"),
        ((2, 2, 2, 1), AttentionConfig(), "attention"),
        pytest.param((2, 2, 2, 1), AttentionConfig(ulysses=2), "full", marks=pytest.mark.slow),
        pytest.param((1, 2, 4, 1), AttentionConfig(ulysses=4), "attention", marks=pytest.mark.slow),
        ((1, 4, 2, 1), AttentionConfig(ulysses=2), "offload"),
        ((1, 2, 4, 1), AttentionConfig(context="ring"), "attention"),
        ((1, 2, 4, 1), AttentionConfig(context="ring", ulysses=2), "full"),
        ((1, 2, 2, 2), AttentionConfig(ulysses=2), "none"),
        pytest.param((1, 2, 2, 2), AttentionConfig(context="ring"), "none", marks=pytest.mark.slow),
        ((1, 2, 2, 2), AttentionConfig("blockwise"), "matmuls"),
    ],
    ids=str,
)
def test_gradients_are_the_same_on_every_mesh(
    sizes: tuple[int, int, int, int], attention: AttentionConfig, remat: Remat
) -> None:
    config = dataclasses.replace(DIT, attention=attention, remat=remat)
    check_equal(updated(config, make_mesh(MeshConfig(*sizes))), on_one_device())


@pytest.mark.slow
@pytest.mark.parametrize(("sizes", "parts"), [((1, 2, 4, 1), 4), ((2, 2, 2, 1), 2)])
def test_a_batch_in_parts_gives_the_gradients_of_the_whole(
    sizes: tuple[int, int, int, int], parts: int
) -> None:
    config = dataclasses.replace(DIT, remat="attention")
    check_equal(updated(config, make_mesh(MeshConfig(*sizes)), parts), on_one_device())


@pytest.mark.parametrize(
    ("sizes", "parts", "context", "attention"),
    [
        ((1, 2, 4, 1), 1, 1, AttentionConfig(ulysses=4)),
        ((2, 1, 4, 1), 2, 2, AttentionConfig(ulysses=4)),
    ],
    ids=str,
)
def test_rows_that_fewer_devices_share_give_the_gradients_of_the_whole(
    sizes: tuple[int, int, int, int], parts: int, context: int, attention: AttentionConfig
) -> None:
    config = dataclasses.replace(DIT, attention=attention)
    check_equal(updated(config, make_mesh(MeshConfig(*sizes)), parts, context), on_one_device())
