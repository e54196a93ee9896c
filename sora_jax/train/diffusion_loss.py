"""The transformer's objective on a latent batch: field, noise, velocity matching, in that order."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from sora_jax.diffusion.conditioning import draw_given, in_clip, layout_of, noise_field
from sora_jax.diffusion.levels import by_noise_level
from sora_jax.diffusion.loss import DiffusionConfig, velocity_matching
from sora_jax.diffusion.path import token_noise
from sora_jax.diffusion.times import training_times
from sora_jax.models.generator import Generator
from sora_jax.train.step import LossFunction, Metrics
from sora_jax.types import LatentBatch


def diffusion_loss(config: DiffusionConfig) -> LossFunction:
    """Loss function of the generator for `train_step`: the mean over the clips of the batch.

    Beside it, by bins of noise level, `loss/level/sum` and `loss/level/weight` are what clips of
    the bin add to it, and their share of the clips: the former sum to the loss, and their ratio is
    the mean loss of a clip in the bin. All are means over rows, on any mesh and in any parts.
    """

    def loss(
        model: Generator, batch: LatentBatch, key: PRNGKeyArray, rows: int
    ) -> tuple[Array, Metrics]:
        for_time, for_given, for_noise = jax.random.split(key, 3)
        example_id, clips = batch.example_id.reshape(-1), batch.example_id.shape[1]
        tokens, frames = _sizes(batch)
        time = training_times(config.times, for_time, example_id, tokens, rows * clips)
        given, level = draw_given(config.conditioning, for_given, example_id, frames)
        of_rows = [x.reshape(batch.example_id.shape) for x in (given, time, level)]
        field = noise_field(batch.frames, batch.segments, *of_rows)
        # A clip's noise follows from its row's first example and from where it stands in the row.
        noise = token_noise(for_noise, batch.example_id[:, 0], *batch.latents.shape[1:])
        layout = layout_of(field, batch.coordinates, batch.segments)
        text = model.encode_text(batch.text, clips)
        errors = velocity_matching(lambda x: model(x, layout, text), batch.latents, noise, field)
        filled = jnp.sum(tokens.reshape(-1, clips) > 0, -1)  # of a row's places, alike in all rows
        given_share = jnp.sum(given.reshape(-1, clips) > 0, -1) / filled

        def of_levels(values: Array) -> Array:
            return jnp.mean(by_noise_level(values, field) / filled[:, None], 0)

        return jnp.mean(jnp.sum(errors, -1) / filled), {
            "given_share": jnp.mean(given_share),
            "loss/level/sum": of_levels(errors),
            "loss/level/weight": of_levels(field.loss_weight),
        }

    return loss


def _sizes(batch: LatentBatch) -> tuple[Int[Array, " clips"], Int[Array, " clips"]]:
    """Tokens and latent frames of every clip of a batch, row by row; 0 of places that are empty."""
    own = in_clip(batch.segments, batch.example_id.shape[1])
    frames = jnp.max(jnp.where(own, batch.frames[..., None] + 1, 0), 1)
    return jnp.sum(own, 1).reshape(-1), frames.reshape(-1)
