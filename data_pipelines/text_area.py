"""How much of a picture lines of text cover, found without a model by what letters look like.

Strokes of letters are steep on both sides, of one height along a line, and close to each other:
the morphological gradient is binarised, closed along the line, and what remains in the shape of a
line, filled with strokes, is counted. Titles, credits and captions are found; a word on a shop
front rarely.
"""

import numpy as np
from jaxtyping import UInt8

from data_pipelines.shots import Clip

HEIGHT = 360  # pixels that pictures are looked at in
STROKE = 60  # of 255: the least step between a letter and what it stands on
LETTER_HEIGHTS = (8, 60)  # pixels of 360
LEAST_ASPECT = 1.5  # of a line: wider than high
FILLED = (0.25, 0.9)  # share of a line's box that strokes cover
LEAST_LETTERS = 4  # apart from each other, of about one height
EVEN = 0.35  # deviation of the letters' heights beside their mean, at most


def text_area(clip: Clip) -> float:
    """Median over pictures of the share that lines of text cover."""
    return float(np.median([_covered(plane) for plane in clip.planes]))


def _covered(plane: UInt8[np.ndarray, "h w"]) -> float:
    import cv2

    width = max(1, round(plane.shape[1] * HEIGHT / plane.shape[0]))
    picture = cv2.resize(plane, (width, HEIGHT), interpolation=cv2.INTER_AREA)
    steps = cv2.morphologyEx(
        picture, cv2.MORPH_GRADIENT, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    )
    strokes = (steps > STROKE).astype(np.uint8)
    lines = cv2.morphologyEx(strokes, cv2.MORPH_CLOSE, np.ones((1, 13), np.uint8))
    _, _, boxes, _ = cv2.connectedComponentsWithStats(lines, connectivity=8)
    covered = 0
    for left, top, across, down, _ in boxes[1:]:
        if not LETTER_HEIGHTS[0] <= down <= LETTER_HEIGHTS[1] or across < LEAST_ASPECT * down:
            continue
        inside = strokes[top : top + down, left : left + across]
        if FILLED[0] <= inside.mean() <= FILLED[1] and _letters(inside):
            covered += int(across) * int(down)
    return covered / picture.size


def _letters(strokes: UInt8[np.ndarray, "h w"]) -> bool:
    """Whether strokes are letters in a row: several pieces of about one height."""
    import cv2

    _, _, pieces, _ = cv2.connectedComponentsWithStats(strokes, connectivity=8)
    heights = pieces[1:, 3][pieces[1:, 3] >= 0.3 * strokes.shape[0]]
    return len(heights) >= LEAST_LETTERS and heights.std() <= EVEN * heights.mean()
