"""The diffusion loss on fixed clips, with fixed noise at fixed noise levels, clip by clip.

Everything but the model is the same whenever it is asked: a clip's noise and levels follow from the
key and its example id, on any mesh and in any batch. So two checkpoints are compared clip by clip,
and what clips and levels differ by, which is most of the spread of a loss, cancels.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from sora_jax.config import ConfigError
from sora_jax.diffusion.conditioning import in_clip
from sora_jax.diffusion.levels import LEVEL_BINS
from sora_jax.diffusion.times import TimesConfig, times_at
from sora_jax.diffusion.token_errors import clip_sizes, token_errors
from sora_jax.types import LatentBatch

STRATA = 8  # noise levels of a clip


@dataclasses.dataclass(frozen=True)
class ClipLosses:
    """Of n clips: which they are, at which times, and their losses there."""

    example_id: Int[np.ndarray, " n"]
    times: Float[np.ndarray, "n strata"]
    losses: Float[np.ndarray, "n strata"]

    def mean(self) -> float:
        """An estimate of the training loss without given frames."""
        return float(self.losses.mean())

    def standard_error(self) -> float:
        """Of the mean, over clips; 0 of a single one, which says nothing of others."""
        count = len(self.losses)
        return float(self.losses.mean(1).std(ddof=1) / np.sqrt(count)) if count > 1 else 0.0

    def by_level(self) -> dict[str, float]:
        """The mean loss in each of LEVEL_BINS bins of noise level that has any."""
        bins = np.minimum((self.times * LEVEL_BINS).astype(int), LEVEL_BINS - 1)
        return {
            f"{number / LEVEL_BINS:.1f}-{(number + 1) / LEVEL_BINS:.1f}": float(
                self.losses[bins == number].mean()
            )
            for number in range(LEVEL_BINS)
            if (bins == number).any()
        }


@dataclasses.dataclass(frozen=True)
class Difference:
    """How much higher the loss of one model is than another's: mean over clips, its standard error,
    and what that would be if clips were not paired."""

    mean: float
    standard_error: float
    unpaired_error: float


def held_out_loss(
    config: TimesConfig, strata: int = STRATA
) -> Callable[[Any, LatentBatch, PRNGKeyArray], tuple[Array, Array]]:
    """A function of model, batch and key to times and losses, [b, s, strata] each, of the clips in
    the rows of a batch. Places without a clip have a loss of 0."""

    def losses(model: Any, batch: LatentBatch, key: PRNGKeyArray) -> tuple[Array, Array]:
        for_time, for_noise = jax.random.split(key)
        clips = batch.example_id.shape
        tokens, _ = clip_sizes(batch)
        times = stratified_times(config, for_time, batch.example_id.reshape(-1), tokens, strata)
        times = times.reshape(strata, *clips)
        none = jnp.zeros(clips, jnp.int32)

        def at(time: Float[Array, "b s"]) -> Float[Array, "b s"]:
            errors, _ = token_errors(model, batch, for_noise, none, time, jnp.zeros(clips))
            own = in_clip(batch.segments, clips[1])
            return jnp.sum(jnp.where(own, errors[..., None], 0.0), 1)

        return jnp.moveaxis(times, 0, -1), jnp.moveaxis(jax.lax.map(at, times), 0, -1)

    return losses


def stratified_times(
    config: TimesConfig,
    key: PRNGKeyArray,
    example_id: Int[Array, " b"],
    tokens: Int[Array, " b"],
    strata: int,
) -> Float[Array, "strata b"]:
    """Times of training for each clip, one of each of so many equal strata."""
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, example_id)
    jitter = jax.vmap(lambda key: jax.random.uniform(key, (strata,)))(keys).T
    return times_at(config, (jnp.arange(strata)[:, None] + jitter) / strata, tokens)


def joined(parts: list[ClipLosses]) -> ClipLosses:
    """Of all parts, by example id. Raises ConfigError where a clip is in two of them."""
    ids = np.concatenate([part.example_id for part in parts])
    order = np.argsort(ids, kind="stable")
    if len(np.unique(ids)) != len(ids):
        raise ConfigError("losses of a clip are there twice: its example id is not its own")
    times = np.concatenate([part.times for part in parts])
    losses = np.concatenate([part.losses for part in parts])
    return ClipLosses(ids[order], times[order], losses[order])


def difference(one: ClipLosses, other: ClipLosses) -> Difference:
    """Of `one` to `other`, clip by clip.

    Raises:
        ConfigError: they are of other clips or times, or of fewer than two clips.
    """
    if not np.array_equal(one.example_id, other.example_id):
        raise ConfigError("losses to be compared are of different clips: evaluate both on one set")
    if not np.allclose(one.times, other.times, atol=1e-6):
        raise ConfigError("losses to be compared are at different noise levels: use one key")
    if len(one.example_id) < 2:
        raise ConfigError("losses of fewer than two clips have no standard error")
    count = len(one.example_id)
    mine, its = one.losses.mean(1), other.losses.mean(1)
    paired = np.std(mine - its, ddof=1) / np.sqrt(count)
    unpaired = np.sqrt((np.var(mine, ddof=1) + np.var(its, ddof=1)) / count)
    return Difference(float((mine - its).mean()), float(paired), float(unpaired))
