"""Guidance: the velocity pushed away from those of a model that is told less.

    v  = v_all + (text - 1) (v_all - v_null) + (history - 1) (v_all - v_alone)               (1)
    d* = d min(1, limit / |t d|),   d* = d* - (1 - parallel) <d*, D> / <D, D> D              (2)
    v* = rescale std(v_all) / std(v) v + (1 - rescale) v                                     (3)

(1) is classifier-free guidance (arXiv:2207.12598). v_null has the null text, that is the empty
caption, or a negative prompt. v_alone has the caption, but the given tokens are pure noise, at
level 1: the field's way to say that nothing is known of them (history guidance, arXiv:2502.06764).
A row whose caption is its null text has no second term: it is all that is given that says what to
make, so where no scale of history is asked for it takes that of text, for the same evaluations.
(2) is adaptive projected guidance (arXiv:2410.02416) for each difference d of (1), D = x - t v_all
the data that is predicted: what lies along D saturates colours. Its momentum is left out, for it
would be a state between evaluations, of which a Heun step has two. (3) is section 3.4 of
arXiv:2305.08891. Norms, products and deviations are over the generated tokens of a clip.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from sora_jax.config import ConfigError
from sora_jax.diffusion.conditioning import in_clip

Velocity = Callable[[Float[Array, "b n c"], Any, Any], Float[Array, "b n c"]]


@dataclasses.dataclass(frozen=True)
class GuidanceConfig:
    """Parameters of equations (1) to (3). Scales of 1 follow text and given tokens as learned and
    cost nothing; another costs an evaluation, the one of history only where tokens are given.

    Tokens at noise levels out of `interval` are not guided (arXiv:2404.07724), and a step in which
    none is costs one evaluation. `parallel` 0 is projected guidance. `limit` is a root mean square
    over the numbers of a clip, so that it means the same at any size; the paper's is a norm.
    """

    scale: float = 1.0
    history: float = 1.0
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0
    parallel: float = 1.0
    limit: float | None = None

    def __post_init__(self) -> None:
        low, high = self.interval
        if min(self.scale, self.history) < 0:
            raise ConfigError(
                f"guidance: scale={self.scale} and history={self.history} must be at least 0; "
                "1 follows what is asked for as learned"
            )
        if not 0 <= low < high <= 1:
            raise ConfigError(
                f"guidance: interval={self.interval} must be two noise levels, a low one and a "
                "high one, from 0 (data) to 1 (noise)"
            )
        if not (0 <= self.rescale <= 1 and 0 <= self.parallel <= 1):
            raise ConfigError(
                f"guidance: rescale={self.rescale} and parallel={self.parallel} must be from 0 to 1"
            )
        if self.limit is not None and self.limit <= 0:
            raise ConfigError(f"guidance: limit={self.limit} must be positive, or none")

    @property
    def is_everywhere(self) -> bool:
        low, high = self.interval
        return low == 0 and high == 1


def guided(
    velocity: Velocity, guidance: float | GuidanceConfig
) -> Callable[..., Float[Array, "b n c"]]:
    """Equations (1) to (3), all evaluations in one call of k b rows; a number is a scale of text.

    The result takes (x, layout, text, null_text, generated, noise, is_told), whose arrays all have
    b rows: `generated` [b, n], which tokens are, is needed for more than a scale of text; `noise`
    [b, n, c] takes the place of given tokens, or is None where none are given; `is_told` [b], whose
    caption is another than the null text, is needed with noise.
    """
    config = _config(guidance)

    def guide(
        x: Array,
        layout: Any,
        text: Any,
        null_text: Any,
        generated: Any = None,
        noise: Any = None,
        is_told: Any = None,
    ) -> Array:
        clips = _Clips(layout, generated)
        scales, inputs = [], [(x, layout, text)]
        alone = None if noise is None else (*clips.alone(noise, x), text)
        if config.scale != 1:
            untold = x, layout, null_text
            scales.append(config.scale)
            by_history = alone is not None and config.history == 1
            inputs.append(_by_row(is_told, untold, alone) if by_history else untold)
        if config.history != 1 and alone is not None:
            scales.append(config.history)
            inputs.append(alone)

        def unguided() -> Array:
            return velocity(x, layout, text)

        def pushed() -> Array:
            rows = jax.tree.map(lambda *parts: jnp.concatenate(parts), *inputs)
            velocities = jnp.split(velocity(*rows), len(inputs))
            return _pushed(config, scales, velocities, x, clips)

        if not scales:
            return unguided()
        if config.is_everywhere:
            return pushed()
        # Given tokens, most of them at level 0, are in intervals that nothing else is in.
        return jax.lax.cond(jnp.any(clips.within(config) & clips.of_generated), pushed, unguided)

    return guide


def looks_away(guidance: float | GuidanceConfig, *, is_told: bool) -> bool:
    """Whether rows, told another caption than their null text or not, are also evaluated without
    what is given to them."""
    config = _config(guidance)
    return config.history != 1 or (config.scale != 1 and not is_told)


def _config(guidance: float | GuidanceConfig) -> GuidanceConfig:
    return guidance if isinstance(guidance, GuidanceConfig) else GuidanceConfig(guidance)


def _pushed(
    config: GuidanceConfig, scales: list[float], velocities: list[Array], x: Array, clips: "_Clips"
) -> Array:
    everything, *less = velocities
    if config.parallel != 1 or config.limit is not None:
        data = x - clips.level * everything
        less = [everything - _projected(config, everything - v, data, clips) for v in less]
    # Summed so that a scale of 0 gives exactly the velocity that is told less.
    pushed = (1 - sum(1 - scale for scale in scales)) * everything
    for scale, velocity in zip(scales, less, strict=True):
        pushed += (1 - scale) * velocity
    if config.rescale:
        change = _ratio(clips.deviation(everything), clips.deviation(pushed))
        pushed *= config.rescale * change + 1 - config.rescale
    return pushed if config.is_everywhere else jnp.where(clips.within(config), pushed, everything)


def _projected(config: GuidanceConfig, difference: Array, data: Array, clips: "_Clips") -> Array:
    """Equation (2). The paper's is of the difference in data, t d: the same where a clip is at one
    level, but this one divides by no level."""
    if config.limit is not None:
        size = jnp.sqrt(clips.mean((clips.level * difference) ** 2))
        difference *= jnp.minimum(1.0, _ratio(jnp.asarray(config.limit), size))
    along = _ratio(clips.mean(difference * data), clips.mean(data**2))
    return difference - (1 - config.parallel) * along * data


@dataclasses.dataclass(frozen=True)
class _Clips:
    """The clips that a layout has in its rows, and which of their tokens are generated."""

    layout: Any
    generated: Any

    @property
    def of_generated(self) -> Bool[Array, "b n 1"]:
        return self.generated[..., None]

    @property
    def of_given(self) -> Bool[Array, "b n 1"]:
        return (~self.generated & (self.layout.segments != 0))[..., None]

    @property
    def level(self) -> Float[Array, "b n 1"]:
        layout = self.layout
        return jnp.take_along_axis(layout.noise_levels, layout.level_index, 1)[..., None]

    def within(self, config: GuidanceConfig) -> Bool[Array, "b n 1"]:
        low, high = config.interval
        return (low <= self.level) & (self.level <= high)

    def alone(self, noise: Array, x: Array) -> tuple[Array, Any]:
        """Tokens and layout where given ones are noise, at level 1 and given no more: those entries
        of the table of levels are replaced that given tokens have."""
        levels = self.layout.noise_levels
        entries = jnp.arange(levels.shape[1])
        has = self.layout.level_index[..., None] == entries
        levels = jnp.where(jnp.any(has & self.of_given, 1), 1.0, levels)
        none_given = jnp.zeros_like(self.layout.segments)
        layout = dataclasses.replace(self.layout, noise_levels=levels, given_segments=none_given)
        return jnp.where(self.of_given, noise, x), layout

    def mean(self, values: Float[Array, "b n c"]) -> Float[Array, "b n 1"]:
        """Over the generated tokens of each token's clip. A clip has levels of its own in its row's
        table, so that a row has no more clips than levels."""
        clips = in_clip(self.layout.segments, self.layout.noise_levels.shape[1])
        own = (clips & self.of_generated).astype(values.dtype)
        sums = jnp.einsum("bns,bnc->bs", own, values)
        means = sums / jnp.maximum(jnp.sum(own, 1) * values.shape[2], 1)
        return jnp.einsum("bns,bs->bn", clips.astype(values.dtype), means)[..., None]

    def deviation(self, values: Float[Array, "b n c"]) -> Float[Array, "b n 1"]:
        return jnp.sqrt(self.mean((values - self.mean(values)) ** 2))


def _by_row(is_one: Bool[Array, " b"], one: Any, other: Any) -> Any:
    """The rows of one tree of arrays, and of another where not."""

    def choose(a: Array, b: Array) -> Array:
        return jnp.where(is_one.reshape(-1, *(1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(choose, one, other)


def _ratio(one: Array, other: Array) -> Array:
    """0 of what is 0, as at padding: what is infinite would move tokens that stay."""
    return one / jnp.maximum(other, jnp.finfo(other.dtype).tiny)
