"""What is given of a clip: the patterns that training draws and that sampling asks for.

A pattern names tokens that are given where they stand: the first latent frames, and all that lies
outside a box, or inside. Frames from elsewhere in time are never given in place, for a causal
latent sees what came before it: they are encoded as clips of their own and appended to the clip's
tokens, at times of their own. `draw_appended` says where from.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from sora_jax.config import ConfigError

AnyArray = Array | np.ndarray

FAR_SECONDS = 100.0  # before a clip: when frames are shown that are to be remembered, not met


@dataclasses.dataclass(frozen=True)
class ConditioningConfig:
    """How often training clips have given frames, and how noisy those are.

    Of clips without appended ones `first_frame`, `prefix` and `box` are the shares that are given
    their first latent frame, a prefix of any length, or all inside or outside a box that goes
    through all frames. Images can have a box alone; the rest is text to video. A share
    `independent` of the clips has not one noise level but `levels`, each of a part of consecutive
    frames (arXiv:2407.01392).

    Of clips with appended ones, which a bucket has or has not, `key_frames` are the share whose
    appended ones stand anywhere in the clip, and `elsewhere` those that are shown long before it;
    the others have one, which is its end. Half of all of these have a prefix as well.

    Half of the clips with given frames get a little noise on them, up to `given_noise`, so that the
    model does not learn to stand still.
    """

    first_frame: float = 0.2
    prefix: float = 0.2
    given_noise: float = 0.1
    box: float = 0.0
    independent: float = 0.0
    levels: int = 1
    key_frames: float = 0.3
    elsewhere: float = 0.2

    def __post_init__(self) -> None:
        _check_shares(first_frame=self.first_frame, prefix=self.prefix, box=self.box)
        _check_shares(key_frames=self.key_frames, elsewhere=self.elsewhere)
        _check_shares(independent=self.independent)
        if not 1 <= self.levels <= 7 or (self.independent > 0) != (self.levels > 1):
            raise ConfigError(
                f"diffusion.conditioning: levels={self.levels} must be from 1 to 7, and above 1 "
                f"where there is a share of independent={self.independent}, and only there"
            )


def _check_shares(**shares: float) -> None:
    if min(shares.values()) < 0 or sum(shares.values()) > 1:
        named = ", ".join(f"{name}={share}" for name, share in shares.items())
        raise ConfigError(
            f"diffusion.conditioning: {named} must be shares of the clips, together at most 1"
        )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Pattern:
    """What is given in place of each of some clips, and how many levels the rest stands at."""

    prefix: Int[AnyArray, "*c"]  # latent frames
    box: Float[AnyArray, "*c 4"]  # (top, bottom, left, right), in the coordinates of tokens
    is_outside: Bool[AnyArray, "*c"]  # whether what is outside the box is generated, or inside
    parts: Int[AnyArray, "*c"]  # of consecutive frames, each at a level of its own


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ClipSizes:
    """Of each of some clips: tokens, latent frames, half the sides in patches, and whether frames
    are appended to it. All 0 where there is none."""

    tokens: Int[Array, "*c"]
    frames: Int[Array, "*c"]
    half_sides: Float[Array, "*c 2"]
    has_appended: Bool[Array, "*c"]


def nothing_given(*clips: int) -> Pattern:
    """Of clips that are generated whole, at one level."""
    everywhere = jnp.broadcast_to(jnp.array([-jnp.inf, jnp.inf] * 2), (*clips, 4))
    zeros = jnp.zeros(clips, jnp.int32)
    return Pattern(zeros, everywhere, zeros > 0, zeros + 1)


def draw_pattern(
    config: ConditioningConfig, key: PRNGKeyArray, example_id: Int[Array, " c"], sizes: ClipSizes
) -> tuple[Pattern, Float[Array, " c"]]:
    """For each training clip: what is given in place, and the noise level of all that is given."""

    def one(example: Array, size: ClipSizes) -> tuple[Pattern, Array]:
        key_of_clip = jax.random.fold_in(key, example)
        pattern, length, noisy, level, side = jax.random.uniform(key_of_clip, (5,))
        for_box, for_parts = jax.random.split(key_of_clip)
        longest = size.frames - 1
        some = 1 + jnp.floor(length * longest).astype(jnp.int32)
        first, prefix = config.first_frame, config.first_frame + config.prefix
        alone = jnp.where(pattern < first, 1, jnp.where(pattern < prefix, some, 0))
        beside = jnp.where(pattern < 0.5, some, 0)
        given = jnp.minimum(jnp.where(size.has_appended, beside, alone), longest)
        has_box = (pattern >= prefix) & (pattern < prefix + config.box) & ~size.has_appended
        everywhere = nothing_given().box
        box = jnp.where(has_box, _draw_box(for_box, size.half_sides), everywhere)
        parts = jnp.where(jax.random.uniform(for_parts) < config.independent, config.levels, 1)
        level = jnp.where(noisy < 0.5, config.given_noise * level, 0.0)
        return Pattern(given, box, has_box & (side < 0.5), parts), level

    return jax.vmap(one)(example_id, sizes)


def _draw_box(key: PRNGKeyArray, half_sides: Float[Array, "2"]) -> Float[Array, "4"]:
    """Sides from a fifth to all of the picture's, at any place; at least a patch in every one."""
    share, place = jax.random.uniform(key, (2, 2))
    length = jnp.maximum(2 * half_sides * (0.2 + 0.8 * share), 1.0)
    start = (2 * half_sides - length) * place - half_sides
    return jnp.stack([start, start + length], 1).reshape(4)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AppendedPlaces:
    """Where each of j appended clips was taken from, and when it is shown."""

    start: Int[Array, "*c j"]  # its first frame in the clip, in pixel frames
    delay: Float[Array, "*c j"]  # seconds by which it is shown later than it stands in the clip
    is_used: Bool[Array, "*c j"]


def draw_appended(
    config: ConditioningConfig,
    key: PRNGKeyArray,
    example_id: Int[Array, " c"],
    frames: int,
    lengths: tuple[int, ...],
) -> AppendedPlaces:
    """For each training clip of so many pixel frames, of the clips appended to it, which have
    `lengths` pixel frames."""
    latest = frames - jnp.array(lengths)

    def one(example: Array) -> AppendedPlaces:
        pattern, *places = jax.random.uniform(jax.random.fold_in(key, example), (1 + len(lengths),))
        anywhere = jnp.floor(jnp.stack(places) * (latest + 1)).astype(jnp.int32)
        is_end = pattern >= config.key_frames + config.elsewhere
        is_far = pattern >= config.key_frames
        return AppendedPlaces(
            start=jnp.where(is_end, latest, anywhere),
            delay=jnp.where(is_far & ~is_end, -FAR_SECONDS, jnp.zeros(len(lengths))),
            is_used=~is_end | (jnp.arange(len(lengths)) == 0),
        )

    return jax.vmap(one)(example_id)
