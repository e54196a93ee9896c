"""A backbone of known arithmetic, and clips to describe by it."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from sora_jax.eval.backbone import Backbone

SHAPES = ((4, 6, 10), (4, 8, 8), (4, 10, 6))


def colours(model: dict[str, Array], clips: Array) -> Array:
    """Of each channel the mean and the mean change, in levels, times a known number."""
    pixels = clips.astype(jnp.float32)
    change = jnp.abs(pixels[:, 1:] - pixels[:, :-1]).mean((1, 2, 3))
    return jnp.concatenate([pixels.mean((1, 2, 3)), change], 1) * model["scale"]


TINY = Backbone("tiny", "0123", "none", 2, {"scale": np.float32(2.0)}, colours)


def of_pictures() -> Backbone:
    """One that describes single frames: the mean and the deviation of each channel."""

    def features(model: dict[str, Array], clips: Array) -> Array:
        pixels = clips.astype(jnp.float32)
        return jnp.concatenate([pixels.mean((1, 2, 3)), pixels.std((1, 2, 3))], 1)

    return Backbone("pictures", "4567", "none", 1, {}, features)


def random_clips(count: int, seed: int = 0) -> list[np.ndarray]:
    """Of several sizes, each of its own brightness."""
    rng = np.random.default_rng(seed)
    clips = []
    for index in range(count):
        size = (*SHAPES[index % len(SHAPES)], 3)
        base = rng.integers(20, 120, 3)
        clips.append((base + rng.integers(0, 100, size)).astype(np.uint8))
    return clips


def by_hand(clips: Sequence[np.ndarray]) -> np.ndarray:
    rows = []
    for clip in clips:
        pixels = clip.astype(np.float64)
        rows.append([*pixels.mean((0, 1, 2)), *abs(np.diff(pixels, axis=0)).mean((0, 1, 2))])
    return 2 * np.asarray(rows)
