"""The likelihood of clips under a flow, by its ordinary differential equation.

    log p(x_0) = log N(x_1; 0, 1) + sum over tokens of the integral of div v dt            (1)
    div v = sum over e of (e dv/dx) e  =  E_z [(z dv/dx) z],   z of -1 and 1, as likely    (2)

(1) is the change of variables from data at t = 0 to noise at t = 1 (arXiv:2011.13456, D.2); each
token's part of the divergence is integrated over that token's own levels, so that given tokens,
whose level stays, count as what is known: the likelihood is of what is generated, given them. (2)
is exact over all unit vectors e, and an estimate without bias by a few z (Hutchinson's).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sora_jax.diffusion.conditioning import NoiseField
from sora_jax.diffusion.path import token_noise
from sora_jax.diffusion.sampler import integrate


def log_likelihood(
    velocity: Callable[[Float[Array, "b n c"], NoiseField], Float[Array, "b n c"]],
    field_at: Callable[[Float[Array, ""]], NoiseField],
    data: Float[Array, "b n c"],
    times: Float[Array, " s"],
    probes: Float[Array, "k b n c"] | None = None,
) -> Float[Array, "b n"]:
    """What each token adds to the logarithm, in nats, of the density of its clip in the space of
    `data`, by Heun's method over `times`, which go from 0 to 1; 0 of given tokens and padding.

    Summed over a clip, log p(generated | given, caption). The velocity is that of the model, not
    guided, which is that of no density. Without `probes` the divergence is exact, for the memory
    and work of n * c gradients at once; with k of them an estimate, for those of k.
    """
    channels = data.shape[2]

    def of_both(state: Array, field: NoiseField) -> Array:
        x = state[..., :channels]
        return jnp.concatenate(_with_divergence(lambda x: velocity(x, field), x, probes), -1)

    state = jnp.concatenate([data, jnp.zeros_like(data[..., :1])], -1)
    # The integral is one more channel of each token: it grows as the token's level does.
    state = integrate(of_both, field_at, state, times, "heun")
    noise, integral = state[..., :channels], state[..., channels]
    prior = jnp.sum(jax.scipy.stats.norm.logpdf(noise), -1)
    return jnp.where(field_at(times[0]).loss_weight > 0, prior + integral, 0.0)


def _with_divergence(
    velocity: Callable[[Array], Array], x: Array, probes: Array | None
) -> tuple[Float[Array, "b n c"], Float[Array, "b n 1"]]:
    """The velocity, and of each token its part of equation (2)."""
    if probes is None:
        numbers = x[0].size
        units = jnp.eye(numbers, dtype=x.dtype).reshape(numbers, 1, *x.shape[1:])
        directions, share = jnp.broadcast_to(units, (numbers, *x.shape)), 1.0
    else:
        directions, share = probes, 1 / len(probes)
    # Backwards, for the networks' fast paths have no derivative forwards.
    value, pull = jax.vjp(velocity, x)
    (pulled,) = jax.vmap(pull)(directions)
    return value, share * jnp.einsum("kbnc,kbnc->bn", directions, pulled)[..., None]


def rademacher_probes(
    key: PRNGKeyArray, example_id: Int[Array, " b"], field: NoiseField, channels: int, probes: int
) -> Float[Array, "k b n c"]:
    """Directions of -1 and 1 for `log_likelihood`, keyed by (key, probe, example, token); 0 at
    tokens that are given, whose velocities are of no account."""
    tokens = field.level_index.shape[1]

    def probe(number: Array) -> Array:
        noise = token_noise(jax.random.fold_in(key, number), example_id, tokens, channels)
        return jnp.where(field.loss_weight[..., None] > 0, jnp.where(noise < 0, -1.0, 1.0), 0.0)

    return jax.vmap(probe)(jnp.arange(probes))
