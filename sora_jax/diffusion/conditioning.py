"""The noise-level field: which tokens are given, which are generated, and how noisy each is.

Noise level 0 means "given". Text to video, animating an image and continuing a clip differ in this
field alone, and training and sampling build it with the one function `noise_field`. Only a prefix
of a clip can be given in place: a causal latent sees what came before it, so frames cut out of the
middle of a clip's latents would know what is to be generated.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sora_jax.config import ConfigError
from sora_jax.types import Layout


@dataclasses.dataclass(frozen=True)
class ConditioningConfig:
    """How often training clips have given frames, and how noisy those are.

    Images and the rest of the clips are text_to_video. Half of the clips with given frames get a
    little noise on them, up to `given_noise`, so that the model does not learn to stand still.
    """

    first_frame: float = 0.2
    prefix: float = 0.2
    given_noise: float = 0.1

    def __post_init__(self) -> None:
        if min(self.first_frame, self.prefix) < 0 or self.first_frame + self.prefix > 1:
            raise ConfigError(
                f"diffusion.conditioning: first_frame={self.first_frame} and prefix={self.prefix} "
                "must be shares of the clips, together at most 1"
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NoiseField:
    """A row's table of noise levels, which of them each token has, and how much it is learned.

    The table has the levels of what is generated in each of the row's clips, and then those of what
    is given in each.
    """

    levels: Float[Array, "b m"]
    level_index: Int[Array, "b n"]
    loss_weight: Float[Array, "b n"]  # of generated tokens, 1 in all for a clip; 0 at the others

    def per_token(self) -> Float[Array, "b n 1"]:
        return jnp.take_along_axis(self.levels, self.level_index, 1)[..., None]


def noise_field(
    frames: Int[Array, "b n"],
    segments: Int[Array, "b n"],
    given_frames: Int[Array, "b s"],
    time: Float[Array, "b s"],
    given_level: Float[Array, "b s"],
) -> NoiseField:
    """The first `given_frames` latent frames of each clip of a row at `given_level`, the rest at
    `time`. A clip that is given whole has no weight."""
    clips = given_frames.shape[1]
    clip = jnp.maximum(segments - 1, 0)
    given = frames < jnp.take_along_axis(given_frames, clip, 1)
    generated = (segments != 0) & ~given
    counts = jnp.sum(generated[..., None] & in_clip(segments, clips), 1)
    shares = 1.0 / jnp.maximum(counts, 1)
    return NoiseField(
        levels=jnp.concatenate([time, given_level], 1),
        level_index=clip + clips * given,
        loss_weight=jnp.where(generated, jnp.take_along_axis(shares, clip, 1), 0.0),
    )


def in_clip(segments: Int[Array, "b n"], clips: int) -> Bool[Array, "b n s"]:
    """Which of a row's clips each token is of."""
    return segments[..., None] == jnp.arange(1, clips + 1)


def layout_of(
    field: NoiseField, coordinates: Float[Array, "b n 3"], segments: Int[Array, "b n"]
) -> Layout:
    """The transformer's view of rows: the field joined with where tokens stand."""
    clips = field.levels.shape[1] // 2
    of_clips = jnp.tile(jnp.arange(1, clips + 1), 2)
    return Layout(
        coordinates=coordinates,
        segments=segments,
        level_index=field.level_index,
        noise_levels=field.levels,
        level_segments=jnp.broadcast_to(of_clips, field.levels.shape),
    )


def draw_given(
    config: ConditioningConfig,
    key: PRNGKeyArray,
    example_id: Int[Array, " b"],
    clip_frames: Int[Array, " b"],
) -> tuple[Int[Array, " b"], Float[Array, " b"]]:
    """For each training clip of so many latent frames: how many are given, at which noise level."""

    def one(example: Array, frames: Array) -> tuple[Array, Array]:
        pattern, length, noisy, level = jax.random.uniform(jax.random.fold_in(key, example), (4,))
        prefix = 1 + jnp.floor(length * (frames - 1)).astype(jnp.int32)
        given = jnp.where(
            pattern < config.first_frame,
            1,
            jnp.where(pattern < config.first_frame + config.prefix, prefix, 0),
        )
        level = jnp.where(noisy < 0.5, config.given_noise * level, 0.0)
        return jnp.minimum(given, frames - 1), level

    return jax.vmap(one)(example_id, clip_frames)
