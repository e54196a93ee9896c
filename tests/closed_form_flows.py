"""Flows whose velocity is known in closed form, for every token at a noise level of its own.

For data x_0 ~ N(mu, S) and x = A x_0 + B eps, A = diag(1 - t), B = diag(t), with t of each token,

    v(x, t) = E[eps - x_0 | x] = (B - S A) M^-1 (x - A mu) - mu,   M = A S A + B^2          (1)

and for a mixture of those the velocities of its parts, weighted by how likely x is of each. Where
all tokens are at one level, dx/dt = v of one Gaussian is solved by

    x_t = (1 - t) mu + C_t^(1/2) C_1^(-1/2) x_1,   C_t = (1 - t)^2 S + t^2                  (2)
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from sora_jax.diffusion.conditioning import NoiseField, noise_field
from tests.tiny import places, prefix_given


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Clips of `tokens` tokens of as many channels as their size leaves, drawn from Gaussians."""

    tokens: int
    weights: np.ndarray  # [parts]
    means: np.ndarray  # [parts, size]
    covariances: np.ndarray  # [parts, size, size]

    def velocity(self, x: jax.Array, field: NoiseField) -> jax.Array:
        """Equation (1), of x [b, n, c]."""
        level = jnp.repeat(field.per_token()[..., 0], x.shape[2], 1)
        return jax.vmap(self._of_row)(x.reshape(len(x), -1), level).reshape(x.shape)

    def _of_row(self, x: jax.Array, t: jax.Array) -> jax.Array:
        def part(mean: jax.Array, covariance: jax.Array) -> tuple[jax.Array, jax.Array]:
            total = (1 - t)[:, None] * covariance * (1 - t) + jnp.diag(t**2)
            away = x - (1 - t) * mean
            pulled = jnp.linalg.solve(total, away)
            likely = -0.5 * (away @ pulled + jnp.linalg.slogdet(total)[1])
            return t * pulled - covariance @ ((1 - t) * pulled) - mean, likely

        velocities, likely = jax.vmap(part)(
            jnp.asarray(self.means, x.dtype), jnp.asarray(self.covariances, x.dtype)
        )
        shares = jax.nn.softmax(likely + jnp.log(jnp.asarray(self.weights, x.dtype)))
        return shares @ velocities

    def log_density(self, x: np.ndarray) -> np.ndarray:
        """Of data [b, n, c], in nats."""
        away = x.reshape(len(x), 1, -1) - self.means
        distance = np.einsum("bki,kij,bkj->bk", away, np.linalg.inv(self.covariances), away)
        volume = np.linalg.slogdet(2 * np.pi * self.covariances)[1]
        return np.log(np.exp(-0.5 * (distance + volume)) @ self.weights)

    def moments(self) -> tuple[np.ndarray, np.ndarray]:
        """Mean and covariance of the data."""
        mean = self.weights @ self.means
        within = np.einsum("k,kij->ij", self.weights, self.covariances)
        away = self.means - mean
        return mean, within + np.einsum("k,ki,kj->ij", self.weights, away, away)

    def draw(self, rows: int, seed: int = 0) -> np.ndarray:
        """Data [b, n, c]."""
        generator = np.random.default_rng(seed)
        parts = generator.choice(len(self.weights), rows, p=self.weights)
        roots = np.linalg.cholesky(self.covariances)[parts]
        normal = generator.standard_normal((rows, self.means.shape[1]))
        flat = self.means[parts] + np.einsum("bij,bj->bi", roots, normal)
        return flat.reshape(rows, self.tokens, -1)


def gaussian(tokens: int = 3, channels: int = 2) -> Mixture:
    """One Gaussian whose tokens depend on each other."""
    size = tokens * channels
    mixing = np.random.default_rng(0).standard_normal((size, size)) / 2 + 0.3 * np.eye(size)
    mean = np.linspace(-1.5, 1.0, size)
    return Mixture(tokens, np.ones(1), mean[None], (mixing @ mixing.T)[None])


def mixture(tokens: int = 3, channels: int = 2) -> Mixture:
    """Two Gaussians that lie apart."""
    one = gaussian(tokens, channels)
    means = np.concatenate([one.means + 1.0, -1.5 * one.means - 1.0])
    other = 0.3 * one.covariances + 0.2 * np.eye(means.shape[1])
    return Mixture(tokens, np.array([0.4, 0.6]), means, np.concatenate([one.covariances, other]))


def solution(flow: Mixture, noise: np.ndarray, start: float = 1.0, end: float = 0.0) -> np.ndarray:
    """Equation (2), from `noise` [b, n, c] at `start`."""
    (mean,), (covariance,) = flow.means, flow.covariances
    values, vectors = np.linalg.eigh(covariance)
    roots = [np.sqrt((1 - t) ** 2 * values + t**2) for t in (start, end)]
    away = (noise.reshape(len(noise), -1) - (1 - start) * mean) @ vectors
    return ((away / roots[0] * roots[1]) @ vectors.T + (1 - end) * mean).reshape(noise.shape)


def together(
    rows: int, tokens: int, given: int = 0, given_level: float = 0.0
) -> Callable[[jax.Array], NoiseField]:
    """`field_at` of clips of one token a frame, whose generated tokens are all at one level."""
    frames = jnp.broadcast_to(jnp.arange(tokens), (rows, tokens))
    first, level = jnp.full((rows, 1), given), jnp.full((rows, 1), given_level)
    where = places(frames, jnp.ones_like(frames))
    return lambda time: noise_field(where, *prefix_given(first, jnp.full((rows, 1), time), level))


def rolling(rows: int, tokens: int, delay: float) -> Callable[[jax.Array], NoiseField]:
    """`field_at` of clips of one token a frame, where the clock goes from 1 to 0 and each token
    starts at level 1 and arrives at 0 by a delay, in levels, later than the one before."""
    index = jnp.broadcast_to(jnp.arange(tokens), (rows, tokens))
    behind = (tokens - 1) * delay

    def field_at(time: jax.Array) -> NoiseField:
        levels = jnp.clip((1 + behind) * time - behind + delay * index, 0.0, 1.0)
        return NoiseField(levels[:, None], index, jnp.full(index.shape, 1 / tokens))

    return field_at
