"""Networks of a few thousand parameters, untrained, for tests of what is done with networks."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import nnx

from sora_jax.data.tokenizer import Tokenizer
from sora_jax.diffusion.times import TimesConfig
from sora_jax.models.dit import DiTConfig
from sora_jax.models.generator import Generator
from sora_jax.models.latents import LatentStatistics
from sora_jax.models.text import TextConfig
from sora_jax.models.vae import VAE, VAEConfig
from sora_jax.sample.generate import Sampler, SamplingConfig
from sora_jax.sharding.mesh import MeshConfig, make_mesh

TEXT_LENGTH = 8
VOCABULARY = 64


@functools.cache
def tiny_networks(given_apart: bool = False) -> tuple[Generator, VAE]:
    """A token covers 8 x 8 pixels, of 1 or 4 frames. The generator's last layer is not zero as in a
    fresh one, so that captions and noise matter."""

    @jax.jit
    def make() -> tuple[Generator, VAE]:
        vae = VAE(VAEConfig(channels=4, widths=(8,), folds=((4, 4),), blocks=1), rngs=nnx.Rngs(0))
        generator = Generator(
            DiTConfig(depth=2, width=32, heads=2, patch=2, given_apart=given_apart),
            TextConfig(depth=1, width=16, heads=2),
            channels=4,
            vocabulary=VOCABULARY,
            rngs=nnx.Rngs(1),
        )
        kernel = generator.dit.out.kernel
        kernel[...] = 0.3 * jax.random.normal(jax.random.key(2), kernel[...].shape)
        return generator, vae

    return make()


def tiny_sampler(
    captions: Sequence[str],
    config: SamplingConfig,
    times: TimesConfig,
    devices: int = 1,
    mesh: MeshConfig | None = None,
    given_apart: bool = False,
) -> Sampler:
    """A sampler of the tiny networks over so many devices, with a tokenizer of the captions."""
    generator, vae = tiny_networks(given_apart)
    return Sampler(
        generator,
        vae,
        LatentStatistics(jnp.full(4, 0.1), jnp.full(4, 1.3)),
        Tokenizer.train(captions, vocabulary_size=VOCABULARY),
        text_length=TEXT_LENGTH,
        times=times,
        config=config,
        mesh=make_mesh(mesh or MeshConfig(), jax.devices()[:devices]),
    )
