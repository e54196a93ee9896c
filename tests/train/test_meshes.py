"""One update is the same on every mesh, by every method of context and every policy of memory."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh

from sora_jax.diffusion.loss import DiffusionConfig
from sora_jax.models.dit import DiTConfig
from sora_jax.models.generator import Generator
from sora_jax.nn.attention import AttentionConfig
from sora_jax.nn.stack import Remat
from sora_jax.programs import step_of
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.sharding.rules import rows_sharding
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.loop import TrainConfig
from sora_jax.train.optimizer import OptimizerConfig
from sora_jax.train.state import init_state
from sora_jax.train.step import compiled
from tests.tiny import TEXT, VAE, VOCABULARY, latent_batch

DIT = DiTConfig(depth=2, width=64, heads=4, patch=1, rope_theta=100.0)
TRAINING = TrainConfig(10, OptimizerConfig(peak_rate=1e-2, warmup_steps=0))
ROWS = 8


def make_generator(config: DiTConfig, rngs: nnx.Rngs) -> Generator:
    """With a last layer that is not zero, so that a first update reaches every parameter."""
    generator = Generator(config, TEXT, channels=VAE.channels, vocabulary=VOCABULARY, rngs=rngs)
    for kernel in (generator.dit.out.kernel, generator.dit.modulation.kernel):
        kernel[...] = 0.1 * jax.random.normal(jax.random.key(2), kernel[...].shape)
    return generator


def updated(config: DiTConfig, mesh: Mesh) -> tuple[dict[str, float], list[np.ndarray]]:
    """Metrics of one step, and the parameters after it."""
    step, optimizer = step_of(TRAINING, diffusion_loss(DiffusionConfig()))
    make = functools.partial(make_generator, config)
    with jax.set_mesh(mesh):
        state = init_state(make, optimizer, jax.random.key(0), mesh)
        batch = jax.device_put(latent_batch(0, rows=ROWS), rows_sharding(mesh))
        state, metrics = compiled(step, state)(state, batch, jax.random.key(1))
    parameters: list[Any] = jax.tree.leaves(state.model)
    return {k: float(v) for k, v in metrics.items()}, [np.asarray(x) for x in parameters]


@functools.cache
def on_one_device() -> tuple[dict[str, float], list[np.ndarray]]:
    return updated(DIT, make_mesh(MeshConfig(), jax.devices()[:1]))


@pytest.mark.parametrize(
    ("sizes", "attention", "remat"),
    [
        ((1, 8, 1, 1), AttentionConfig(), "none"),
        ((2, 4, 1, 1), AttentionConfig(), "full"),
        ((2, 2, 2, 1), AttentionConfig(), "attention"),
        ((2, 2, 2, 1), AttentionConfig(ulysses=2), "full"),
        ((1, 2, 4, 1), AttentionConfig(ulysses=4), "attention"),
        ((1, 2, 4, 1), AttentionConfig(context="ring"), "attention"),
        ((1, 2, 4, 1), AttentionConfig(context="ring", ulysses=2), "full"),
        ((1, 2, 2, 2), AttentionConfig(ulysses=2), "none"),
        ((1, 2, 2, 2), AttentionConfig(context="ring"), "none"),
    ],
    ids=str,
)
def test_an_update_is_the_same_on_every_mesh(
    sizes: tuple[int, int, int, int], attention: AttentionConfig, remat: Remat
) -> None:
    config = dataclasses.replace(DIT, attention=attention, remat=remat)
    metrics, parameters = updated(config, make_mesh(MeshConfig(*sizes)))
    wanted, expected = on_one_device()
    for name in ("loss", "gradient_norm", "update_norm"):
        assert metrics[name] == pytest.approx(wanted[name], rel=1e-5)
    # Adam's first step is the sign of a gradient, wherever one is more than rounding.
    for array, right in zip(parameters, expected, strict=True):
        close = np.isclose(array, right, rtol=1e-5, atol=1e-5)
        assert np.mean(close) > 0.999
