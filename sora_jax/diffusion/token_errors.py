"""What a model gets wrong of each token of a batch, at given noise levels of its clips."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sora_jax.diffusion.conditioning import NoiseField, in_clip, layout_of, noise_field
from sora_jax.diffusion.loss import velocity_matching
from sora_jax.diffusion.path import token_noise
from sora_jax.types import LatentBatch


def token_errors(
    model: Any,
    batch: LatentBatch,
    key: PRNGKeyArray,
    given_frames: Int[Array, "b s"],
    time: Float[Array, "b s"],
    given_level: Float[Array, "b s"],
) -> tuple[Float[Array, "b n"], NoiseField]:
    """Weighted errors of the tokens where each clip has so many given frames, at this time and
    level; and the field. `model` is a Generator. A clip's noise follows from the key, its row's
    first example and from where it stands in the row."""
    field = noise_field(batch.frames, batch.segments, given_frames, time, given_level)
    noise = token_noise(key, batch.example_id[:, 0], *batch.latents.shape[1:])
    layout = layout_of(field, batch.coordinates, batch.segments)
    text = model.encode_text(batch.text, batch.example_id.shape[1])
    return velocity_matching(lambda x: model(x, layout, text), batch.latents, noise, field), field


def clip_sizes(batch: LatentBatch) -> tuple[Int[Array, " clips"], Int[Array, " clips"]]:
    """Tokens and latent frames of every clip of a batch, row by row; 0 of places that are empty."""
    own = in_clip(batch.segments, batch.example_id.shape[1])
    frames = jnp.max(jnp.where(own, batch.frames[..., None] + 1, 0), 1)
    return jnp.sum(own, 1).reshape(-1), frames.reshape(-1)
