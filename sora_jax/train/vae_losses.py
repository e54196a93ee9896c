"""The autoencoder's objective: reconstruction and KL, with room for perceptual and adversarial."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sora_jax.diffusion.path import token_noise
from sora_jax.models.vae import VAE, to_unit
from sora_jax.train.step import LossFunction, Metrics
from sora_jax.types import VideoBatch

Term = Callable[[Float[Array, "b t h w 3"], Float[Array, "b t h w 3"]], Float[Array, ""]]
"""Loss of (reconstruction, target), both in [-1, 1]: the shape of a perceptual or an adversarial
term."""


@dataclasses.dataclass(frozen=True)
class VAELossConfig:
    """Weights. Reconstruction is squared + `absolute` x absolute error a pixel; KL is a latent
    number's, so that the weights keep their meaning when the compression changes."""

    absolute: float = 0.1
    kl: float = 1e-4


def vae_loss(config: VAELossConfig, extra_terms: Mapping[str, Term] | None = None) -> LossFunction:
    """Loss function of the autoencoder for `train_step`; `extra_terms` are added as they come."""
    terms = dict(extra_terms or {})

    def loss(model: VAE, batch: VideoBatch, key: PRNGKeyArray, rows: int) -> tuple[Array, Metrics]:
        target = to_unit(batch.video)
        mean, log_variance = model.encode(target)
        noise = token_noise(key, batch.example_id, mean[0].size, 1).reshape(mean.shape)
        reconstruction = model.decode(mean + jnp.exp(log_variance / 2) * noise)
        error = reconstruction - target
        squared = jnp.mean(jnp.square(error))
        kl = 0.5 * jnp.mean(jnp.square(mean) + jnp.exp(log_variance) - 1.0 - log_variance)
        total = squared + config.absolute * jnp.mean(jnp.abs(error)) + config.kl * kl
        values: dict[str, Any] = {
            name: term(reconstruction, target) for name, term in terms.items()
        }
        metrics = {"psnr_db": 10.0 * jnp.log10(4.0 / squared), "kl": kl, **values}
        return total + sum(values.values()), jax.tree.map(jax.lax.stop_gradient, metrics)

    return loss
