"""LPIPS of clips: the mean over frames of models/lpips.py, batch by batch."""

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array, Float, UInt8

from sora_jax.models.lpips import LEAST_SIDE, LPIPS
from sora_jax.models.vae import to_unit
from sora_jax.processes import to_host

Video = UInt8[np.ndarray, "t h w 3"]

PIXELS_AT_ONCE = 2**19  # of frames in a batch: VGG16 takes 0.8 GB for as many


def measures(model: LPIPS, video: Video) -> bool:
    """Whether frames are as large as the network needs them."""
    return min(video.shape[1:3]) >= LEAST_SIDE[model.pooling]


def clip_distances(
    model: LPIPS, videos: Sequence[Video], references: Sequence[Video]
) -> list[float]:
    """Of each clip to its reference, all of one height and width; of frames, the mean."""
    return column_distances(model, [videos], references)[0]


def column_distances(
    model: LPIPS, columns: Sequence[Sequence[Video]], references: Sequence[Video]
) -> list[list[float]]:
    """`clip_distances` of several columns of clips to the same references, which are described
    once."""
    counts = [len(reference) for reference in references]
    made = np.stack([np.concatenate(videos) for videos in columns])
    truths = np.concatenate(references)
    frames, height, width = truths.shape[:3]
    rows = min(frames, max(1, PIXELS_AT_ONCE // (height * width)))
    found = []
    for start in range(0, frames, rows):
        # The last batch is filled up by repeating, so that a size compiles once.
        chosen = np.minimum(np.arange(start, start + rows), frames - 1)
        found.append(to_host(_distances(model, made[:, chosen], truths[chosen])))
    each = np.concatenate(found, 1)[:, :frames]
    by_clip = np.split(each, np.cumsum(counts)[:-1], axis=1)
    means: list[list[float]] = np.stack([part.mean(1) for part in by_clip], 1).tolist()
    return means


@jax.jit
def _distances(
    model: LPIPS, made: UInt8[Array, "k n h w 3"], truths: UInt8[Array, "n h w 3"]
) -> Float[Array, "k n"]:
    of_truths = model.features(to_unit(truths))
    return jax.lax.map(lambda x: model.between(model.features(to_unit(x)), of_truths), made)
