"""What is measured of a clip, one small versioned function each; rules decide about it later.

A score is computed once and kept in the table, so that a rule can change without a frame being
decoded again. To add one, write a function Clip -> float and add a Score to SCORES. Whoever changes
what a function gives raises its version, and tables of old and new can be told apart.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping

import numpy as np

from data_pipelines.shots import Clip
from data_pipelines.text_area import text_area

STILL = 0.5 / 255  # a change of brightness that noise of a codec makes too


@dataclasses.dataclass(frozen=True)
class Score:
    """A number about a clip. `unit` says what it counts, for people who set a threshold."""

    name: str
    version: int
    unit: str
    of: Callable[[Clip], float]


def brightness(clip: Clip) -> float:
    return float(clip.planes.mean()) / 255


def contrast(clip: Clip) -> float:
    """Median over pictures of the deviation of brightness inside each."""
    return float(np.median(clip.planes.std((1, 2)))) / 255


def sharpness(clip: Clip) -> float:
    """Median variance of the Laplacian at the size of the video, where blur leaves little.
    Source: Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000."""
    import cv2

    return float(np.median([cv2.Laplacian(plane, cv2.CV_64F).var() for plane in clip.planes]))


def blockiness(clip: Clip) -> float:
    """How much steeper brightness changes over edges of 8 x 8 blocks than beside them: 1 where
    no codec left its grid. Source: Wang, Sheikh and Bovik, ICIP 2002 (their B, without the rest).
    """
    ratios = []
    for plane in clip.planes:
        for lines in (plane, plane.T):
            steps = np.abs(np.diff(lines.astype(np.int16), axis=1)).mean(0)
            by_phase = [float(steps[phase::8].mean()) for phase in range(8) if len(steps) > 8]
            if by_phase:
                ratios.append((max(by_phase) + 0.1) / (float(np.median(by_phase)) + 0.1))
    return float(np.median(ratios)) if ratios else 1.0


def motion(clip: Clip) -> float:
    """Mean motion in picture heights a second: of the codec's vectors, or, where it has none, of
    optical flow between pictures."""
    if clip.frames == 1:
        return 0.0
    vectors = clip.motion[np.isfinite(clip.motion)]
    if len(vectors) >= clip.frames / 4:
        return float(vectors.mean()) * clip.frames / max(clip.end - clip.start, 1e-3)
    return _flow(clip)


def _flow(clip: Clip) -> float:
    """Mean length of Farneback's flow, in picture heights a second."""
    import cv2

    greys = [cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY) for picture in clip.pictures]
    if len(greys) < 2:
        return float(clip.changes.mean()) if len(clip.changes) else 0.0
    lengths = []
    for before, after in itertools.pairwise(greys):
        start = np.zeros((*before.shape, 2), np.float32)
        flow = cv2.calcOpticalFlowFarneback(before, after, start, 0.5, 3, 15, 3, 5, 1.2, 0)
        lengths.append(float(np.hypot(flow[..., 0], flow[..., 1]).mean()))
    return float(np.mean(lengths)) / greys[0].shape[0] / clip.seconds


def static_fraction(clip: Clip) -> float:
    """Share of frames that are as the one before."""
    return float((clip.changes < STILL).mean()) if len(clip.changes) else 0.0


def cut_inside(clip: Clip) -> float:
    """The largest change between frames beside the mean of its four neighbours: a cut or a flash
    that was not split at stands out. 0 where nothing changes by a twentieth of the range."""
    changes = clip.changes.astype(np.float64)
    largest = 0.0
    for at in np.flatnonzero(changes > 0.05):
        around = np.concatenate([changes[max(0, at - 2) : at], changes[at + 1 : at + 3]])
        if len(around):
            largest = max(largest, float(changes[at] / (around.mean() + 0.01)))
    return largest


SCORES = (
    Score("brightness", 1, "mean, 0 to 1", brightness),
    Score("contrast", 1, "deviation inside a picture, 0 to 0.5", contrast),
    Score("sharpness", 1, "variance of the Laplacian, levels squared", sharpness),
    Score("blockiness", 1, "steps at block edges beside other steps", blockiness),
    Score("motion", 1, "picture heights a second", motion),
    Score("static_fraction", 1, "share of frames equal to the one before", static_fraction),
    Score("cut_inside", 1, "largest change beside its neighbours", cut_inside),
    Score("text_area", 1, "share of the picture that lines of text cover", text_area),
)


def scored(clip: Clip, scores: tuple[Score, ...] = SCORES) -> Mapping[str, float]:
    """Every score of a clip whose bars are cut off."""
    return {score.name: score.of(clip) for score in scores}
