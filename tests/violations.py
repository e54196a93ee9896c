"""Clips that break what their truth promises, for tests of metrics: each a function of a clip."""

from collections.abc import Callable

import numpy as np
from scipy.ndimage import gaussian_filter

Violation = Callable[[np.ndarray, np.random.Generator], np.ndarray]


def truthful(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The clip as it is."""
    return video


def coded(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The clip as an autoencoder returns it: a little blur, and grain of 0.03."""
    soft = gaussian_filter(video / 255.0, (0, 0.6, 0.6, 0))
    return np.asarray(np.clip(soft + rng.normal(0, 0.03, video.shape), 0, 1) * 255 + 0.5, np.uint8)


def frozen(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The first frame, standing still."""
    return np.repeat(video[:1], len(video), axis=0)


def noise(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Uniform noise."""
    return rng.integers(0, 256, video.shape, np.uint8)


def shuffled(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The frames in random order."""
    return video[rng.permutation(len(video))]


def half_speed(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each frame twice, so that the clip ends half way."""
    return video[np.arange(len(video)) // 2]


def jumping(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All of the picture shifted by a ninth of its width from the middle of the clip on."""
    half = len(video) // 2
    late = np.roll(video[half:], video.shape[2] // 9, axis=2)
    return np.concatenate([video[:half], late])


def drifting(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The first frame, shifted sideways by one more pixel in every fourth frame."""
    return np.stack([np.roll(video[0], step // 4, axis=1) for step in range(len(video))])


def vanishing(video: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Everything bright and coloured gone from the middle of the clip on, greys left in place."""
    half = len(video) // 2
    late = video[half:].copy()
    late[np.ptp(late, axis=-1) > 25] = (26, 26, 31)
    return np.concatenate([video[:half], late])
