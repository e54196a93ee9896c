"""Whether an animated picture stays itself and moves."""

import math

import numpy as np
from jaxtyping import UInt8

Video = UInt8[np.ndarray, "t h w 3"]

STILL = 0.5  # pixels
LEAST_STEEPNESS = 1.0  # levels a pixel: less is no edge


def colour_change(video: Video) -> float:
    """How far the mean colour moves from frame 0 to frame 1, in levels of 255, mean over channels.

    Given frames and generated ones come from one decoder but not from one source: a jump here is
    what one sees first.
    """
    means = video[:2].reshape(2, -1, 3).mean(1)
    return float(abs(means[1] - means[0]).mean())


def displacement(video: Video) -> float:
    """Pixels that edges move between frame 1 and the later frame that differs most from it.

    To first order a shift d changes a picture by d times its gradient, so the ratio of the two, as
    root mean squares, is the shift. Grain is smoothed away before, for it is no motion. Frame 0 is
    left out: a jump after it is none either. The ratio saturates at about the size of the objects.
    0 if there are fewer than two frames after frame 0.
    """
    frames = _smooth(_smooth(video[1:].astype(np.float32)))
    if len(frames) < 2:
        return 0.0
    slopes = (np.diff(frames[0], axis=axis) for axis in (0, 1))
    steepness = math.sqrt(np.mean([np.mean(np.square(slope)) for slope in slopes]))
    changes = np.sqrt(np.mean(np.square(frames[1:] - frames[0]), axis=(1, 2, 3)))
    return float(changes.max()) / max(steepness, LEAST_STEEPNESS)


def _smooth(frames: np.ndarray) -> np.ndarray:
    """Frames [t, h, w, 3] under the kernel (1 2 1) / 4 along height and width."""
    for axis in (1, 2):
        shape = [(1, 1) if a == axis else (0, 0) for a in range(4)]
        padded = np.pad(frames, shape, mode="edge")
        before, after = np.delete(padded, (-1, -2), axis), np.delete(padded, (0, 1), axis)
        frames = 0.5 * frames + 0.25 * (before + after)
    return frames


def is_still(video: Video) -> bool:
    """Whether a clip moves by less than half a pixel in all."""
    return displacement(video) < STILL
