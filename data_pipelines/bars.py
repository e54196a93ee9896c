"""Black bars around a picture: how wide they are, and clips without them."""

import dataclasses

import numpy as np
from jaxtyping import UInt8

from data_pipelines.shots import Clip

BLACK = 24  # of 255; limited-range black is 16 at most after conversion, and codecs blur it
INSIDE = 0.98  # of a bar is black at least: a logo or noise may lie on it
MOST = 0.4  # of a side may be bars; beyond that the picture itself is dark
LEAST = 3  # lines; fewer are a fault of the camera, and a picture of all its lines is as good
STRAIGHT = (
    0.3  # of the first lines inside is bright, or what is inside has no straight edge: a title
)
EDGE = 1  # pixels cut off beyond a bar, where the codec mixes it with the picture

Box = tuple[int, int, int, int]  # left, top, right, bottom, in pixels of the upright video


def content_box(planes: UInt8[np.ndarray, "m h w"]) -> Box:
    """The part of the pictures that is not black at all times, the whole if there are no bars."""
    brightest = planes.max(0)
    top, bottom = _edges((brightest > BLACK).mean(1))
    left, right = _edges((brightest[top:bottom] > BLACK).mean(0))
    return left, top, right, bottom


def _edges(bright: np.ndarray) -> tuple[int, int]:
    """First line that is no bar, and one past the last, from the share of bright pixels in each."""
    inside = np.flatnonzero(bright > 1 - INSIDE)
    length = len(bright)
    if not len(inside):
        return 0, length
    first, last = int(inside[0]), int(inside[-1]) + 1
    if max(first, length - last) > MOST * length:
        return 0, length
    top = first >= LEAST and bright[first : first + 3].max() >= STRAIGHT
    bottom = length - last >= LEAST and bright[last - 3 : last].max() >= STRAIGHT
    return first + EDGE if top else 0, last - EDGE if bottom else length


def without_bars(clip: Clip) -> tuple[Clip, Box]:
    """The clip cut to its content, and where in the video that lies."""
    box = left, top, right, bottom = content_box(clip.planes)
    height, width = clip.size
    if box == (0, 0, width, height):
        return clip, box
    rows, columns = clip.pictures.shape[1:3]
    small = (
        slice(-(-top * rows // height), max(1, bottom * rows // height)),
        slice(-(-left * columns // width), max(1, right * columns // width)),
    )
    return dataclasses.replace(
        clip,
        pictures=clip.pictures[:, small[0], small[1]],
        averages=clip.averages[:, small[0], small[1]],
        planes=clip.planes[:, top:bottom, left:right],
    ), box
