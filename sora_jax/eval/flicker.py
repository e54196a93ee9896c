"""Temporal flicker: what the error of a clip changes by from frame to frame.

With truth x_t, the clip y_t and its error e_t = y_t - x_t, over all pixels of a clip,

    flicker = mean over t of mean |e_(t+1) - e_t|                                    (1)
    motion  = mean over t of mean |x_(t+1) - x_t|                                    (2)

in levels of 255. An error that stands still, however large, does not flicker: PSNR tells of that.
An error that is drawn anew in every frame flickers by more than its own size.
"""

import numpy as np
from jaxtyping import UInt8

Video = UInt8[np.ndarray, "t h w 3"]


def flicker(video: Video, reference: Video) -> float:
    """Equation (1), of a clip of two frames or more."""
    error = video.astype(np.int16) - reference
    return float(np.abs(np.diff(error, axis=0)).mean())


def motion(reference: Video) -> float:
    """Equation (2), of a clip of two frames or more."""
    return float(np.abs(np.diff(reference.astype(np.int16), axis=0)).mean())
