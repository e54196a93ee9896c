"""The transformer's objective on a latent batch: field, noise, velocity matching, in that order."""

import jax
import jax.numpy as jnp
from jaxtyping import Array

from sora_jax.diffusion.conditioning import in_clip
from sora_jax.diffusion.levels import by_noise_level
from sora_jax.diffusion.loss import DiffusionConfig
from sora_jax.diffusion.patterns import draw_pattern
from sora_jax.diffusion.times import training_levels
from sora_jax.diffusion.token_errors import clip_sizes, token_errors
from sora_jax.models.generator import Generator
from sora_jax.train.step import LossFunction, Metrics, Moment
from sora_jax.types import LatentBatch


def diffusion_loss(config: DiffusionConfig) -> LossFunction:
    """Loss function of the generator for `train_step`: the mean over the clips of the batch.

    Beside it, by bins of noise level, `loss/level/sum` and `loss/level/weight` are what clips of
    the bin add to it, and their share of the clips: the former sum to the loss, and their ratio is
    the mean loss of a clip in the bin. All are means over rows, on any mesh and in any parts.
    """

    def loss(
        model: Generator, batch: LatentBatch, moment: Moment, rows: int
    ) -> tuple[Array, Metrics]:
        for_time, for_given, for_noise = jax.random.split(moment.key, 3)
        example_id, clips = batch.example_id.reshape(-1), batch.example_id.shape[1]
        sizes, given = clip_sizes(batch), config.conditioning
        times = training_levels(
            config.times, for_time, example_id, sizes.tokens, rows * clips, given.levels
        )
        pattern, given_level = draw_pattern(given, for_given, example_id, sizes)
        levels = jnp.concatenate([times, given_level[:, None]], 1)
        sizes, pattern, levels = jax.tree.map(
            lambda x: x.reshape(-1, clips, *x.shape[1:]), (sizes, pattern, levels)
        )
        errors, field = token_errors(model, batch, for_noise, pattern, levels)
        filled = jnp.sum(sizes.tokens > 0, -1)  # of a row's places, alike in all rows
        generated = in_clip(batch.segments, clips) & (field.loss_weight > 0)[..., None]
        has_given = sizes.has_appended | (jnp.sum(generated, 1) < sizes.tokens)

        def of_levels(values: Array) -> Array:
            return jnp.mean(by_noise_level(values, field) / filled[:, None], 0)

        return jnp.mean(jnp.sum(errors, -1) / filled), {
            "given_share": jnp.mean(jnp.sum(has_given, -1) / filled),
            "loss/level/sum": of_levels(errors),
            "loss/level/weight": of_levels(field.loss_weight),
        }

    return loss
