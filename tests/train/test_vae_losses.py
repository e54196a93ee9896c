"""The autoencoder's objective against its terms computed by hand."""

import jax
import jax.numpy as jnp
import numpy as np

from sora_jax.diffusion.path import token_noise
from sora_jax.models.vae import VAE, to_unit
from sora_jax.train.vae_losses import VAELossConfig, vae_loss
from sora_jax.types import VideoBatch
from tests.tiny import VAE as CONFIG
from tests.tiny import randomised

MODEL = randomised(lambda rngs: VAE(CONFIG, rngs=rngs), deviation=0.1)
KEY = jax.random.key(2)


def batch() -> VideoBatch:
    video = np.random.default_rng(0).integers(0, 255, (2, 5, 8, 8, 3)).astype(np.uint8)
    examples = jnp.array([4, 9], jnp.int32)
    return VideoBatch(jnp.asarray(video), jnp.zeros((2, 3), jnp.int32), jnp.full(2, 8.0), examples)


def test_the_loss_is_the_sum_of_its_weighted_terms() -> None:
    target = to_unit(batch().video)
    mean, log_variance = MODEL.encode(target)
    noise = token_noise(KEY, batch().example_id, mean[0].size, 1).reshape(mean.shape)
    error = np.asarray(MODEL.decode(mean + jnp.exp(log_variance / 2) * noise) - target)
    kl = 0.5 * np.mean(mean**2 + np.exp(log_variance) - 1 - log_variance)
    squared = np.mean(error**2)
    config = VAELossConfig(absolute=0.3, kl=0.02)
    total, metrics = vae_loss(config)(MODEL, batch(), KEY, len(batch().text))
    np.testing.assert_allclose(total, squared + 0.3 * np.abs(error).mean() + 0.02 * kl, rtol=1e-5)
    np.testing.assert_allclose(metrics["kl"], kl, rtol=1e-5)
    np.testing.assert_allclose(metrics["psnr_db"], -10 * np.log10(squared / 4), rtol=1e-5)


def test_a_further_term_is_added_and_reported() -> None:
    plain, _ = vae_loss(VAELossConfig())(MODEL, batch(), KEY, len(batch().text))
    terms = {"perceptual": lambda found, wanted: 2.0 * jnp.mean((found - wanted) ** 2)}
    total, metrics = vae_loss(VAELossConfig(), terms)(MODEL, batch(), KEY, len(batch().text))
    assert float(metrics["perceptual"]) > 0
    np.testing.assert_allclose(total, plain + metrics["perceptual"], rtol=1e-6)
