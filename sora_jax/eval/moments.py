"""Mean and covariance of features that stream by: on any mesh, in any batches, the same numbers.

Raw second moments lose the covariance where features are far from 0: of float32 features with mean
200 it is a quarter off. So every batch gives (n, mean, scatter about its own mean), and these are
merged exactly (Chan, Golub, LeVeque 1979, eq. 2.1). Rows that only fill a batch up count for
nothing; a batch of features that is divided over a mesh gives its moments whole to every process.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Bool, Float


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Moments:
    """Of `count` rows of features: their mean [d], and the sum of (x - mean)(x - mean)^T [d, d]."""

    count: Any
    mean: Any
    scatter: Any

    @property
    def covariance(self) -> np.ndarray:
        """The unbiased estimate, float64 [d, d]. Raises ValueError for fewer than two rows."""
        if self.count < 2:
            raise ValueError(f"a covariance of {int(self.count)} rows")
        return np.asarray(self.scatter, np.float64) / (float(self.count) - 1)


@jax.jit
def moments_of(features: Float[Array, "n d"], real: Bool[Array, " n"]) -> Moments:
    """Moments of the rows that are real, in float32."""
    features = jnp.where(real[:, None], features.astype(jnp.float32), 0.0)
    count = jnp.sum(real.astype(jnp.float32))
    mean = jnp.sum(features, 0) / jnp.maximum(count, 1.0)
    # Twice: of the rounding of a mean far from 0 nothing is left.
    mean += jnp.sum(jnp.where(real[:, None], features - mean, 0.0), 0) / jnp.maximum(count, 1.0)
    centred = jnp.where(real[:, None], features - mean, 0.0)
    scatter = jnp.matmul(centred.T, centred, precision=lax.Precision.HIGHEST)
    return Moments(count, mean, scatter)


def no_moments(features: int) -> Moments:
    """Of no rows: what a stream begins with, in float64."""
    return Moments(0.0, np.zeros(features), np.zeros((features, features)))


def merged(one: Moments, other: Moments) -> Moments:
    """Of the rows of both, in float64 on this host."""
    mine, its = (
        Moments(float(x.count), np.asarray(x.mean, np.float64), np.asarray(x.scatter, np.float64))
        for x in (one, other)
    )
    count = mine.count + its.count
    share = its.count / max(count, 1.0)
    between = its.mean - mine.mean
    scatter = mine.scatter + its.scatter + np.outer(between, between) * mine.count * share
    return Moments(count, mine.mean + between * share, scatter)
