"""Contact sheets: frames side by side, those that were given in a frame of their own colour."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from sora_jax.eval.modes.cases import Case
from sora_jax.eval.modes.reading import Video

FRAMES = 9  # of a line
GIVEN, PLAIN = (255, 196, 0), (255, 255, 255)


def contact_sheet(case: Case, clips: Sequence[Video]) -> UInt8[np.ndarray, "1 h w 3"]:
    """A line for each clip of a case, of evenly spaced frames. Given frames are framed, and so is
    the box that is made anew."""
    count = len(clips[0])
    shown = np.unique(np.linspace(0, count - 1, min(FRAMES, count)).round().astype(int))
    lines = [np.concatenate([_framed(case, clip, n) for n in shown], axis=1) for clip in clips]
    sheet: Video = np.concatenate(lines)[None]
    return sheet


def _framed(case: Case, clip: Video, number: int) -> UInt8[np.ndarray, "h w 3"]:
    picture = clip[number].copy()
    if case.box is not None:
        top, bottom, left, right = case.box
        for rows, columns in (
            ((top, bottom - 1), slice(left, right)),
            (slice(top, bottom), (left, right - 1)),
        ):
            picture[rows, columns] = GIVEN
    colour = GIVEN if number in case.given else PLAIN
    sides = [np.pad(picture[..., c], 2, constant_values=colour[c]) for c in range(3)]
    return np.stack(sides, -1)
