"""The rectified-flow path between data and noise (arXiv:2209.03003), and its noise.

x_t = (1 - t) x_0 + t eps                  (1)   t = 0 is data, t = 1 is noise
v   = d x_t / dt = eps - x_0               (2)
x_0 = x_t - t v                            (3)
"""

import jax
from jaxtyping import Array, Float, Int, PRNGKeyArray


def interpolate(
    data: Float[Array, "b n c"], noise: Float[Array, "b n c"], level: Float[Array, "b n 1"]
) -> Float[Array, "b n c"]:
    """Equation (1), with a noise level per token."""
    return (1.0 - level) * data + level * noise


def velocity_target(
    data: Float[Array, "b n c"], noise: Float[Array, "b n c"]
) -> Float[Array, "b n c"]:
    """Equation (2)."""
    return noise - data


def token_noise(
    key: PRNGKeyArray, example_id: Int[Array, " b"], tokens: int, channels: int
) -> Float[Array, "b n c"]:
    """Standard normal noise keyed by (key, example, token): the same on any number of devices, in
    any batch, and, token by token, under any padding."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, example_id)
    return jax.vmap(lambda key: jax.random.normal(key, (tokens, channels)))(keys)
