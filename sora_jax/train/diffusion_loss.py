"""The transformer's objective on a latent batch: field, noise, velocity matching, in that order."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from sora_jax.diffusion.conditioning import draw_given, layout_of, noise_field
from sora_jax.diffusion.loss import DiffusionConfig, velocity_matching
from sora_jax.diffusion.path import token_noise
from sora_jax.diffusion.times import training_times
from sora_jax.models.generator import Generator
from sora_jax.train.step import LossFunction, Metrics
from sora_jax.types import LatentBatch


def diffusion_loss(config: DiffusionConfig) -> LossFunction:
    """Loss function of the generator for `train_step`: the mean over rows of the batch."""

    def loss(
        model: Generator, batch: LatentBatch, key: PRNGKeyArray, rows: int
    ) -> tuple[Array, Metrics]:
        for_time, for_given, for_noise = jax.random.split(key, 3)
        tokens = jnp.sum(batch.segments != 0, -1)
        time = training_times(config.times, for_time, batch.example_id, tokens, rows)
        clip_frames = jnp.max(batch.frames, -1) + 1
        given, level = draw_given(config.conditioning, for_given, batch.example_id, clip_frames)
        field = noise_field(batch.frames, batch.segments, given, time, level)
        noise = token_noise(for_noise, batch.example_id, *batch.latents.shape[1:])
        layout = layout_of(field, batch.coordinates, batch.segments)
        text = model.encode_text(batch.text)
        each = velocity_matching(lambda x: model(x, layout, text), batch.latents, noise, field)
        return jnp.mean(each), {"given_share": jnp.mean(given > 0)}

    return loss
