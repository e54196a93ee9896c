"""The kinds of autoencoder that an experiment may name, made by the class of their config."""

from flax import nnx

from sora_jax.models.vae import VAE, VAEConfig
from sora_jax.models.wan_vae import WanVAE, WanVAEConfig

AutoencoderConfig = VAEConfig | WanVAEConfig


def make_autoencoder(config: AutoencoderConfig, *, rngs: nnx.Rngs) -> VAE:
    return VAE(config, rngs=rngs) if isinstance(config, VAEConfig) else WanVAE(config, rngs=rngs)
