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

from sora_jax.diffusion.conditioning import in_clip
from sora_jax.diffusion.levels import LEVEL_BINS
from sora_jax.diffusion.patterns import nothing_given
from sora_jax.diffusion.times import TimesConfig, times_at
from sora_jax.diffusion.token_errors import clip_sizes, token_errors
from sora_jax.eval.clip_scores import Score, of_values
from sora_jax.types import LatentBatch

STRATA = 8  # noise levels of a clip


@dataclasses.dataclass(frozen=True)
class ClipLosses:
    """Of n clips: the times they are asked at, and their losses there."""

    times: Float[np.ndarray, "n strata"]
    losses: Float[np.ndarray, "n strata"]

    def scores(self) -> dict[str, Score]:
        """`loss`, which estimates the training loss without given frames, and `loss/level_A-B` in
        each of LEVEL_BINS bins of noise level, where a clip counts as often as it was asked."""
        scores = {"loss": of_values(self.losses.mean(1))}
        bins = np.minimum((self.times * LEVEL_BINS).astype(int), LEVEL_BINS - 1)
        for number in range(LEVEL_BINS):
            name = f"loss/level_{number / LEVEL_BINS:.1f}-{(number + 1) / LEVEL_BINS:.1f}"
            inside = bins == number
            asked = inside.sum(1)
            total = np.where(inside, self.losses, 0.0).sum(1)
            scores[name] = Score(total / np.maximum(asked, 1), asked.astype(np.float64))
        return scores


def held_out_loss(
    config: TimesConfig, strata: int = STRATA
) -> Callable[[Any, LatentBatch, PRNGKeyArray], tuple[Array, Array]]:
    """A function of model, batch and key to times and losses, [b, s, strata] each, of the clips in
    the rows of a batch. Places without a clip have a loss of 0."""

    def losses(model: Any, batch: LatentBatch, key: PRNGKeyArray) -> tuple[Array, Array]:
        for_time, for_noise = jax.random.split(key)
        clips = batch.example_id.shape
        tokens = clip_sizes(batch).tokens
        times = stratified_times(config, for_time, batch.example_id.reshape(-1), tokens, strata)
        times = times.reshape(strata, *clips)
        nothing = nothing_given(*clips)

        def at(time: Float[Array, "b s"]) -> Float[Array, "b s"]:
            levels = jnp.stack([time, jnp.zeros(clips)], -1)
            errors, _ = token_errors(model, batch, for_noise, nothing, levels)
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
