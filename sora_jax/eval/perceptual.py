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
    counts = [len(video) for video in videos]
    frames, truths = np.concatenate(videos), np.concatenate(references)
    height, width = frames.shape[1:3]
    rows = min(len(frames), max(1, PIXELS_AT_ONCE // (height * width)))
    found = []
    for start in range(0, len(frames), rows):
        # The last batch is filled up by repeating, so that a size compiles once.
        chosen = np.minimum(np.arange(start, start + rows), len(frames) - 1)
        found.append(to_host(_distances(model, frames[chosen], truths[chosen])))
    each = np.concatenate(found)[: len(frames)]
    return [float(part.mean()) for part in np.split(each, np.cumsum(counts)[:-1])]


@jax.jit
def _distances(
    model: LPIPS, frames: UInt8[Array, "n h w 3"], truths: UInt8[Array, "n h w 3"]
) -> Float[Array, " n"]:
    return model(to_unit(frames), to_unit(truths))
