"""What tokens come to by noise level: which levels a model has learned is not seen in one mean."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from sora_jax.diffusion.conditioning import NoiseField

LEVEL_BINS = 5


def by_noise_level(values: Float[Array, "b n"], field: NoiseField) -> Float[Array, "b bins"]:
    """Sums of the tokens' values over each row, in LEVEL_BINS equal bins of noise level in [0, 1].

    First over the tokens of each level in the row's table, of which there are few.
    """
    levels = field.levels.reshape(len(field.levels), -1)
    own = field.level_index[..., None] == jnp.arange(levels.shape[1])
    of_levels = jnp.sum(jnp.where(own, values[..., None], 0.0), 1)
    bins = jnp.minimum(jnp.floor(levels * LEVEL_BINS), LEVEL_BINS - 1)
    in_bins = bins[..., None] == jnp.arange(LEVEL_BINS)
    return jnp.sum(jnp.where(in_bins, of_levels[..., None], 0.0), 1)
