"""A run is the same run on one device and on a 2 x 2 x 2 x 1 mesh, to rounding."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
import pytest
from flax import nnx
from jax.sharding import Mesh

from sora_jax.checkpoints import named
from sora_jax.diffusion.loss import DiffusionConfig
from sora_jax.diffusion.times import TimesConfig
from sora_jax.models import vae
from sora_jax.models.discriminator import Discriminator, DiscriminatorConfig
from sora_jax.models.judged_vae import JudgedVAE
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.sharding.rules import parameter_shardings, rows_sharding
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.optimizer import OptimizerConfig, make_optimizer
from sora_jax.train.state import TrainState, abstract_state, init_state
from sora_jax.train.step import LossFunction, TrainStep
from sora_jax.train.vae_losses import AdversarialConfig, VAELossConfig, vae_loss
from sora_jax.types import VideoBatch
from tests.tiny import VAE, eight_device_mesh, latent_batch, make_generator, one_device_mesh

STEPS = 24
# An entry of a matrix moves by the rate with AdamW, by about a fifth of it with Muon.
OPTIMIZERS = {
    method: make_optimizer(OptimizerConfig(method, peak_rate=rate, warmup_steps=4), STEPS)
    for method, rate in (("adamw", 3e-3), ("muon", 1.5e-2))
}

ADVERSARIAL = AdversarialConfig(DiscriminatorConfig(8, 2), warmup_steps=4, r1=0.1)


def make_vae(rngs: nnx.Rngs) -> vae.VAE:
    return vae.VAE(VAE, rngs=rngs)


def make_judged(rngs: nnx.Rngs) -> JudgedVAE:
    discriminator = Discriminator(ADVERSARIAL.discriminator, rngs=rngs)
    return JudgedVAE(make_vae(rngs), None, discriminator)


def video_batch(seed: int) -> VideoBatch:
    generator = np.random.default_rng(seed)
    return VideoBatch(
        video=generator.integers(0, 255, (4, 5, 8, 8, 3)).astype(np.uint8),
        text=np.zeros((4, 6), np.int32),
        fps=np.full(4, 8, np.float32),
        example_id=np.arange(4, dtype=np.int32) + 4 * seed,
    )


STAGES: dict[str, tuple[Callable[[nnx.Rngs], Any], LossFunction, Callable[[int], Any]]] = {
    "dit": (
        make_generator,
        diffusion_loss(DiffusionConfig(times=TimesConfig(base_tokens=12))),
        latent_batch,
    ),
    "vae": (make_vae, vae_loss(VAELossConfig()), video_batch),
    "judged": (make_judged, vae_loss(VAELossConfig(adversarial=ADVERSARIAL)), video_batch),
}


def trained(stage: str, method: str, mesh: Mesh) -> tuple[TrainState, TrainState, list[float]]:
    """State before and after, and the loss of every step."""
    make_model, loss, batch_of = STAGES[stage]
    optimizer = OPTIMIZERS[method]
    with jax.set_mesh(mesh):
        state = first = init_state(make_model, optimizer, jax.random.key(0), mesh)
        shardings = jax.tree.map(lambda array: array.sharding, state)
        step = TrainStep(loss, optimizer, ema_decay=0.9)
        run = jax.jit(step, out_shardings=(shardings, None))
        losses = []
        for number in range(STEPS):
            batch = jax.device_put(batch_of(number), rows_sharding(mesh))
            state, metrics = run(state, batch, jax.random.key(1))
            losses.append(float(metrics["loss"]))
    return first, state, losses


@pytest.mark.parametrize("method", ["adamw", pytest.param("muon", marks=pytest.mark.slow)])
@pytest.mark.parametrize("stage", STAGES)
def test_a_run_is_the_same_on_eight_devices(stage: str, method: str) -> None:
    first, last, losses = trained(stage, method, one_device_mesh())
    spread_first, spread_last, spread_losses = trained(stage, method, eight_device_mesh())
    assert losses[-1] < 0.97 * losses[0]  # there is something to agree on
    for expected, found in zip(*map(jax.tree.leaves, (first, spread_first)), strict=True):
        np.testing.assert_array_equal(found, expected)  # the start does not know of the mesh
    np.testing.assert_allclose(spread_losses, losses, rtol=1e-5)
    for expected, found in zip(*map(jax.tree.leaves, (last.ema, spread_last.ema)), strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("stage", "sizes"), [("dit", (2, 2, 2, 1)), ("dit", (1, 2, 2, 2)), ("vae", (1, 2, 2, 2))]
)
def test_moments_and_average_are_laid_out_as_the_parameters(
    stage: str, sizes: tuple[int, int, int, int]
) -> None:
    mesh, make_model = make_mesh(MeshConfig(*sizes)), STAGES[stage][0]
    state = abstract_state(make_model, OPTIMIZERS["adamw"], mesh)
    wanted = [leaf.sharding for leaf in jax.tree.leaves(state.model)]
    leaves = jax.tree.leaves(state.model)
    split = [leaf.size for leaf in leaves if not leaf.sharding.is_fully_replicated]
    assert sum(split) > 0.7 * sum(leaf.size for leaf in leaves)
    adam = next(
        part
        for part in jax.tree.leaves(
            state.opt_state, is_leaf=lambda part: isinstance(part, optax.ScaleByAdamState)
        )
        if isinstance(part, optax.ScaleByAdamState)
    )
    for tree in (state.ema, adam.mu, adam.nu):
        assert [leaf.sharding for leaf in jax.tree.leaves(tree)] == wanted
    assert wanted == jax.tree.leaves(parameter_shardings(state.model, mesh))


def test_momentum_of_muon_is_laid_out_as_the_matrices_it_is_for() -> None:
    mesh = make_mesh(MeshConfig(1, 2, 2, 2))
    state = init_state(make_generator, OPTIMIZERS["muon"], jax.random.key(0), mesh)
    wanted = {name: array.sharding for name, array in named(state.model).items()}
    [muon] = [
        part
        for part in jax.tree.leaves(
            state.opt_state, is_leaf=lambda part: isinstance(part, optax.contrib.MuonState)
        )
        if isinstance(part, optax.contrib.MuonState)
    ]
    momentum = {name: array.sharding for name, array in named(muon.mu).items()}
    assert momentum == {name: wanted[name] for name in momentum}
    assert sum(not sharding.is_fully_replicated for sharding in momentum.values()) > 10
