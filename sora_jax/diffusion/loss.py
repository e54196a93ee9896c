"""Velocity matching on the generated tokens: the training objective."""

import dataclasses
from collections.abc import Callable

import jax.numpy as jnp
from jaxtyping import Array, Float

from sora_jax.diffusion.conditioning import NoiseField
from sora_jax.diffusion.path import interpolate, velocity_target
from sora_jax.diffusion.patterns import ConditioningConfig
from sora_jax.diffusion.times import TimesConfig


@dataclasses.dataclass(frozen=True)
class DiffusionConfig:
    """Everything about the objective that an experiment chooses."""

    times: TimesConfig = TimesConfig()
    conditioning: ConditioningConfig = ConditioningConfig()


def velocity_matching(
    velocity: Callable[[Float[Array, "b n c"]], Float[Array, "b n c"]],
    data: Float[Array, "b n c"],
    noise: Float[Array, "b n c"],
    field: NoiseField,
) -> Float[Array, "b n"]:
    """Mean square velocity error of each token times its weight: sum a row for its clips' losses.

    Weights are per clip, so a short one weighs as much as a long one; 0 at tokens that are given.
    """
    predicted = velocity(interpolate(data, noise, field.per_token()))
    error = jnp.mean(jnp.square(predicted - velocity_target(data, noise)), -1)
    return error * field.loss_weight
