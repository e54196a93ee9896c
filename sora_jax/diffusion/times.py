"""Which noise levels are trained on, and which a sampler visits.

t  = sigmoid(mean + deviation * z),  z ~ N(0, 1)     (1)  logit-normal, arXiv:2403.03206
t' = a t / (1 + (a - 1) t)                           (2)  shift towards noise by a
a  = sqrt(tokens / base_tokens)                      (3)  arXiv:2403.03206, 5.3.2
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sora_jax.config import ConfigError


@dataclasses.dataclass(frozen=True)
class TimesConfig:
    """Parameters of equations (1) to (3). `base_tokens`: the clip size that is not shifted."""

    mean: float = 0.0
    deviation: float = 1.0
    base_tokens: int = 256

    def __post_init__(self) -> None:
        if self.deviation <= 0 or self.base_tokens <= 0:
            raise ConfigError(
                f"diffusion.times: deviation={self.deviation} and "
                f"base_tokens={self.base_tokens} must be positive"
            )

    def shift(self, tokens: int | Int[Array, " b"]) -> Float[Array, "..."]:
        """Equation (3) for clips of so many tokens."""
        return jnp.sqrt(jnp.asarray(tokens) / self.base_tokens)


def shifted(times: Float[Array, "*b"], shift: Float[Array, "..."]) -> Float[Array, "*b"]:
    """Equation (2)."""
    return shift * times / (1.0 + (shift - 1.0) * times)


def training_times(
    config: TimesConfig,
    key: PRNGKeyArray,
    example_id: Int[Array, " b"],
    tokens: Int[Array, " b"],
    clips: int,
) -> Float[Array, " b"]:
    """A time for each clip: logit-normal, stratified over the whole batch, shifted by its tokens.

    A clip draws u from its own of `clips` equal strata, as many as the whole batch has room for, so
    that it covers all noise levels. The example tells which: a batch is made of consecutive ones,
    also where a device or a part of the step sees some of it. Where rows have places that are left
    empty, some strata, other ones at every step, are too.
    """
    strata = jax.random.permutation(key, clips)[example_id % clips]
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, example_id)
    jitter = jax.vmap(jax.random.uniform)(keys)
    return times_at(config, (strata + jitter) / clips, tokens)


def training_levels(
    config: TimesConfig,
    key: PRNGKeyArray,
    example_id: Int[Array, " b"],
    tokens: Int[Array, " b"],
    clips: int,
    count: int,
) -> Float[Array, "b m"]:
    """`training_times` for each clip, and `count` - 1 more of the same distribution, for parts of
    clips that stand at levels of their own."""
    first = training_times(config, key, example_id, tokens, clips)
    _, of_others = jax.random.split(key)
    keys = jax.vmap(jax.random.fold_in, (None, 0))(of_others, example_id)
    others = jax.vmap(lambda key: jax.random.uniform(key, (count - 1,)))(keys)
    return jnp.concatenate([first[:, None], times_at(config, others.T, tokens).T], 1)


def times_at(
    config: TimesConfig, quantiles: Float[Array, "*n b"], tokens: Int[Array, " b"]
) -> Float[Array, "*n b"]:
    """Of clips of so many tokens, at quantiles of what they are trained on."""
    normal = jax.scipy.special.ndtri(jnp.clip(quantiles, 1e-6, 1.0 - 1e-6))
    return shifted(jax.nn.sigmoid(config.mean + config.deviation * normal), config.shift(tokens))


def sampling_times(config: TimesConfig, steps: int, tokens: int) -> Float[Array, " s"]:
    """steps + 1 times from 1 (noise) to 0 (data), shifted as in training."""
    shift = math.sqrt(tokens / config.base_tokens)
    return shifted(jnp.linspace(1.0, 0.0, steps + 1), jnp.asarray(shift))
