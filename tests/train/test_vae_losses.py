"""The autoencoder's objective against its terms computed by hand, and each network's gradient."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jaxtyping import Array

from sora_jax.config import ConfigError
from sora_jax.diffusion.path import token_noise
from sora_jax.experiment import VAEStage
from sora_jax.models.discriminator import Discriminator, DiscriminatorConfig
from sora_jax.models.judged_vae import JudgedVAE
from sora_jax.models.vae import VAE, to_unit
from sora_jax.programs import vae_step
from sora_jax.sharding.rules import parameter_shardings
from sora_jax.train.run import TrainConfig
from sora_jax.train.state import init_state
from sora_jax.train.step import Moment
from sora_jax.train.vae_losses import AdversarialConfig, VAELossConfig, vae_loss
from sora_jax.types import VideoBatch
from tests.tiny import VAE as CONFIG
from tests.tiny import one_device_mesh, randomised

MODEL = randomised(lambda rngs: VAE(CONFIG, rngs=rngs), deviation=0.1)
KEY = jax.random.key(2)
ADVERSARIAL = AdversarialConfig(
    DiscriminatorConfig(width=4, layers=2), weight=0.7, warmup_steps=3, r1=0.5
)


class Distance(nnx.Module):
    """Squared difference under one learned weight: a perceptual distance in small."""

    def __init__(self) -> None:
        self.weight = nnx.Param(jnp.full(3, 2.0), axes=(None,))

    def __call__(self, x: Array, y: Array) -> Array:
        return jnp.mean(self.weight[...] * (x - y) ** 2, (1, 2, 3))


def make_judged(rngs: nnx.Rngs) -> JudgedVAE:
    discriminator = Discriminator(ADVERSARIAL.discriminator, rngs=rngs)
    return JudgedVAE(VAE(CONFIG, rngs=rngs), Distance(), discriminator)


JUDGED = randomised(make_judged, deviation=0.1)


def batch(rows: int = 2, frames: int = 5) -> VideoBatch:
    shape = (rows, frames, 8, 8, 3)
    video = np.random.default_rng(0).integers(0, 255, shape).astype(np.uint8)
    examples = jnp.asarray([4, 9, 2, 7][:rows], jnp.int32)
    text = jnp.zeros((rows, 3), jnp.int32)
    return VideoBatch(jnp.asarray(video), text, jnp.full(rows, 8.0), examples)


def sampled(vae: VAE, key: jax.Array) -> tuple[np.ndarray, np.ndarray, float]:
    """Target, reconstruction and KL of the batch."""
    target = to_unit(batch().video)
    mean, log_variance = vae.encode(target)
    noise = token_noise(key, batch().example_id, mean[0].size, 1).reshape(mean.shape)
    video = vae.decode(mean + jnp.exp(log_variance / 2) * noise)
    kl = 0.5 * np.mean(mean**2 + np.exp(log_variance) - 1 - log_variance)
    return np.asarray(target), np.asarray(video), kl


def test_the_loss_is_the_sum_of_its_weighted_terms() -> None:
    target, video, kl = sampled(MODEL, KEY)
    error = video - target
    squared = np.mean(error**2)
    config = VAELossConfig(squared=0.5, absolute=0.3, kl=0.02)
    total, metrics = vae_loss(config)(MODEL, batch(), Moment(KEY, 0), 2)
    expected = 0.5 * squared + 0.3 * np.abs(error).mean() + 0.02 * kl
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(metrics["psnr_db"], -10 * np.log10(squared / 4), rtol=1e-5)


def test_a_perceptual_distance_is_taken_of_as_many_frames() -> None:
    model = JudgedVAE(MODEL, Distance(), None)
    config = VAELossConfig(squared=0, absolute=0, kl=0, perceptual=0.5)
    target, video, _ = sampled(MODEL, jax.random.split(KEY)[0])
    by_frame = np.mean(2 * (video - target) ** 2, (0, 2, 3, 4))
    total, metrics = vae_loss(config)(model, batch(), Moment(KEY, 0), 2)
    np.testing.assert_allclose(metrics["perceptual"], by_frame.mean(), rtol=1e-5)
    np.testing.assert_allclose(total, 0.5 * by_frame.mean(), rtol=1e-5)
    two = dataclasses.replace(config, perceptual_frames=2)
    found = {
        float(vae_loss(two)(model, batch(), Moment(jax.random.key(n), 0), 2)[1]["perceptual"])
        for n in range(8)
    }
    assert len(found) > 2  # other frames every step


def losses(model: JudgedVAE, step: int, **config: Any) -> tuple[Any, dict[str, Any]]:
    """Gradients and metrics at a step."""
    made = VAELossConfig(perceptual=0.3, adversarial=dataclasses.replace(ADVERSARIAL, **config))
    grad = jax.jit(jax.value_and_grad(vae_loss(made), has_aux=True), static_argnums=3)
    (_, metrics), gradients = grad(model, batch(), Moment(KEY, step), 2)
    return gradients, metrics


def by_hand(model: JudgedVAE, weight: float) -> tuple[Any, Any, float]:
    """Gradients of the autoencoder and of the discriminator from two plain losses, and the ratio of
    the norms that weighs the adversarial term."""
    target = to_unit(batch().video)
    key = jax.random.split(KEY)[0]

    def decoded(vae: VAE) -> Any:
        mean, log_variance = vae.encode(target)
        noise = token_noise(key, batch().example_id, mean[0].size, 1).reshape(mean.shape)
        kl = 0.5 * jnp.mean(mean**2 + jnp.exp(log_variance) - 1 - log_variance)
        return vae.decode(mean + jnp.exp(log_variance / 2) * noise), kl

    def plain(vae: VAE) -> Any:
        error = decoded(vae)[0] - target
        distance = jnp.mean(model.perceptual.weight[...] * error**2)
        return jnp.mean(error**2) + 0.1 * jnp.mean(jnp.abs(error)) + 0.3 * distance

    def fooling(vae: VAE) -> Any:
        return -jnp.mean(model.discriminator(decoded(vae)[0]))

    def all_of_it(vae: VAE) -> Any:
        return plain(vae) + weight * fooling(vae) + 1e-4 * decoded(vae)[1]

    def hinge(discriminator: Discriminator) -> Any:
        real, fake = discriminator(target), discriminator(decoded(model.vae)[0])
        slope = jax.grad(lambda x: jnp.sum(jnp.mean(discriminator(x), (1, 2, 3))))(target)
        r1 = 0.5 * 0.5 * real[0].size * jnp.mean(jnp.sum(slope**2, (1, 2, 3, 4)))
        return 0.5 * (jnp.mean(jnp.maximum(1 - real, 0)) + jnp.mean(jnp.maximum(1 + fake, 0))) + r1

    norms = [
        float(jnp.linalg.norm(jax.grad(part)(model.vae).last_kernel())) for part in (plain, fooling)
    ]
    gradients = jax.grad(all_of_it)(model.vae), jax.grad(hinge)(model.discriminator)
    return *gradients, norms[0] / norms[1]


def assert_close(found: Any, expected: Any) -> None:
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-4, atol=1e-7)


@pytest.mark.parametrize("step", [2, 3])
def test_each_network_gets_the_gradient_of_its_own_loss(step: int) -> None:
    gradients, metrics = losses(JUDGED, step)
    weight = float(metrics["adversarial_weight"])
    of_vae, of_discriminator, ratio = by_hand(JUDGED, weight)
    assert weight == pytest.approx(0.0 if step < 3 else 0.7 * ratio, rel=1e-3)
    assert_close(gradients.vae, of_vae)
    assert_close(gradients.discriminator, of_discriminator)
    assert not jnp.any(gradients.perceptual.weight[...])


def test_an_update_changes_all_but_what_is_given() -> None:
    loss = VAELossConfig(perceptual=0.3, adversarial=ADVERSARIAL)
    step = vae_step(VAEStage(TrainConfig(10), loss))
    state = init_state(make_judged, step.optimizer, jax.random.key(0), one_device_mesh())
    before = jax.tree.map(np.array, state.model)
    for _ in range(2):  # the first has a rate of zero
        state, metrics = jax.jit(step)(state, batch(), KEY)
    assert float(metrics["skipped"]) == 0
    changed = jax.tree.map(lambda a, b: bool(np.any(a != b)), before, state.model)
    assert all(jax.tree.leaves((changed.vae, changed.discriminator)))
    assert not any(jax.tree.leaves(changed.perceptual))
    # Nothing is kept of gradients that are none.
    sizes = [leaf.size for leaf in jax.tree.leaves(state.opt_state)]
    learned = sum(x.size for x in jax.tree.leaves((before.vae, before.discriminator)))
    assert sum(sizes) < 2 * learned + 10
    shardings = parameter_shardings(state.opt_state, one_device_mesh())
    assert len(jax.tree.leaves(shardings)) == len(sizes)
    assert optax.tree.get_all_with_path(state.opt_state, "count")[0][1] == 2


def test_images_are_judged_as_clips_of_one_frame() -> None:
    config = VAELossConfig(perceptual=0.3, adversarial=ADVERSARIAL)
    total, _ = vae_loss(config)(JUDGED, batch(frames=1), Moment(KEY, 5), 2)
    assert jnp.isfinite(total)


def test_wrong_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="weights must not be negative"):
        VAELossConfig(kl=-1.0)
    with pytest.raises(ConfigError, match="adversarial: weight=0.0 must be positive"):
        AdversarialConfig(weight=0.0)
