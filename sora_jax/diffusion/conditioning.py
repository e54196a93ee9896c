"""The noise-level field: which tokens are given, which are generated, and how noisy each is.

Noise level 0 means "given". Text to video, animating an image, continuing a clip, editing one and
the rest differ in this field alone, and training and sampling build it with the one function
`noise_field`, of a pattern (patterns.py) and of the levels of its parts.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sora_jax.diffusion.patterns import AnyArray, Pattern
from sora_jax.types import Layout, Places


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NoiseField:
    """A row's table of noise levels, which of them each token has, and how much it is learned.

    Each of the row's clips has m levels: those of the parts that are generated, and last that of
    all that is given.
    """

    levels: Float[Array, "b s m"]
    level_index: Int[Array, "b n"]  # into the levels of all clips, one after another
    loss_weight: Float[Array, "b n"]  # of generated tokens, 1 in all for a clip; 0 at the others

    def per_token(self) -> Float[Array, "b n 1"]:
        levels = self.levels.reshape(len(self.levels), -1)
        return jnp.take_along_axis(levels, self.level_index, 1)[..., None]


def noise_field(places: Places, pattern: Pattern, levels: Float[Array, "b s m"]) -> NoiseField:
    """The field of rows whose clips have these patterns [b, s] and levels, as NoiseField has them.

    Parts are of consecutive latent frames, about as many each. What is appended is given. A clip
    that is given whole has no weight.
    """
    clips, each = levels.shape[1:]
    clip = jnp.maximum(places.segments - 1, 0)

    def of_clip(values: AnyArray) -> Array:
        return jnp.take_along_axis(values, clip, 1)

    own = in_clip(places.segments, clips) & (places.appended == 0)[..., None]
    frames = of_clip(jnp.max(jnp.where(own, places.frames[..., None] + 1, 1), 1))
    y, x = places.coordinates[..., 1], places.coordinates[..., 2]
    top, bottom, left, right = (of_clip(pattern.box[..., side]) for side in range(4))
    inside = (top <= y) & (y < bottom) & (left <= x) & (x < right)
    made = inside ^ of_clip(pattern.is_outside)
    given = (places.frames < of_clip(pattern.prefix)) | ~made | (places.appended > 0)
    part = jnp.clip(places.frames * of_clip(pattern.parts) // frames, 0, each - 2)
    generated = (places.segments != 0) & ~given
    counts = jnp.sum(generated[..., None] & own, 1)
    shares = 1.0 / jnp.maximum(counts, 1)
    return NoiseField(
        levels=levels,
        level_index=clip * each + jnp.where(given, each - 1, part),
        loss_weight=jnp.where(generated, of_clip(shares), 0.0),
    )


def in_clip(segments: Int[Array, "b n"], clips: int) -> Bool[Array, "b n s"]:
    """Which of a row's clips each token is of."""
    return segments[..., None] == jnp.arange(1, clips + 1)


def layout_of(field: NoiseField, places: Places) -> Layout:
    """The transformer's view of rows: the field joined with where tokens stand."""
    rows, clips, each = field.levels.shape
    of_clips = jnp.repeat(jnp.arange(1, clips + 1), each)
    is_given = field.level_index % each == each - 1
    return Layout(
        coordinates=places.coordinates,
        segments=places.segments,
        level_index=field.level_index,
        noise_levels=field.levels.reshape(rows, -1),
        level_segments=jnp.broadcast_to(of_clips, (rows, clips * each)),
        given_segments=jnp.where(is_given, places.segments, 0),
    )
