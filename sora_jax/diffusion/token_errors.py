"""What a model gets wrong of each token of a batch, at given noise levels of its clips."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from sora_jax.diffusion.conditioning import NoiseField, in_clip, layout_of, noise_field
from sora_jax.diffusion.loss import velocity_matching
from sora_jax.diffusion.path import token_noise
from sora_jax.diffusion.patterns import ClipSizes, Pattern
from sora_jax.types import LatentBatch


def token_errors(
    model: Any,
    batch: LatentBatch,
    key: PRNGKeyArray,
    pattern: Pattern,
    levels: Float[Array, "b s m"],
) -> tuple[Float[Array, "b n"], NoiseField]:
    """Weighted errors of the tokens of clips of these patterns and levels; and the field. `model`
    is a Generator. A clip's noise follows from the key, its row's first example and from where it
    stands in the row."""
    field = noise_field(batch, pattern, levels)
    noise = token_noise(key, batch.example_id[:, 0], *batch.latents.shape[1:])
    layout = layout_of(field, batch)
    text = model.encode_text(batch.text, batch.example_id.shape[1])
    return velocity_matching(lambda x: model(x, layout, text), batch.latents, noise, field), field


def clip_sizes(batch: LatentBatch) -> ClipSizes:
    """Of every clip of a batch, row by row."""
    of_clip = in_clip(batch.segments, batch.example_id.shape[1])
    own = of_clip & (batch.appended == 0)[..., None]

    def most(values: Array, of: Array) -> Array:
        return jnp.max(jnp.where(of, values[..., None], 0), 1).reshape(-1)

    sides = [most(batch.coordinates[..., axis] + 0.5, own) for axis in (1, 2)]
    return ClipSizes(
        tokens=jnp.sum(own, 1).reshape(-1),
        frames=most(batch.frames + 1, own),
        half_sides=jnp.stack(sides, -1),
        has_appended=most(batch.appended, of_clip) > 0,
    )
