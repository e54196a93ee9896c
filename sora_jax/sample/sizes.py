"""Any size: the next one that the networks divide, of which what was asked is cut out, and a small
one whose clip comes out like that of a large one."""

import dataclasses
import math
from typing import Any

import numpy as np

from sora_jax.data.transforms import fit
from sora_jax.sample.requests import Request, RequestError, Video, check_box, check_pictures


def divisible(request: Request, temporal: int, cell: int) -> Request:
    """The request at the next larger size that the networks divide: 1 + temporal * k frames, and
    sides that are multiples of `cell` pixels. Itself, if they divide its own.

    What was asked for are the first frames of what is made, without rows at the bottom and columns
    at the right. What is given at the clip's size has its edges repeated to the larger one, and a
    video of all its frames its last frame; a box that touches the edge goes on to the new one.

    Raises:
        RequestError: what is given has another size than the clip, or a box is not inside it.
    """
    height, width = _up(request.height, cell), _up(request.width, cell)
    frames = _frames_up(request.frames, temporal)
    changes: dict[str, Any] = {"frames": frames, "height": height, "width": width}
    if request.noise_of is not None:
        count, rows, columns = request.noise_of
        noise_of = (_frames_up(count, temporal), _up(rows, cell), _up(columns, cell))
        request = dataclasses.replace(request, noise_of=noise_of)
    if (frames, height, width) == (request.frames, request.height, request.width):
        return request
    rows, columns = height - request.height, width - request.width

    def enlarged(what: str, video: Video, missing: int = 0) -> Video:
        check_pictures(what, video, request)
        return np.pad(video, ((0, missing), (0, rows), (0, columns), (0, 0)), mode="edge")

    if request.given is not None:
        is_whole = request.given_frames == request.frames
        missing = frames - request.frames if is_whole else 0
        changes |= {
            "given": enlarged("given frames", request.given, missing),
            "kept": request.kept_frames,
        }
    changes["beside"] = tuple(
        dataclasses.replace(clip, video=enlarged("frames given beside the clip", clip.video))
        for clip in request.beside
    )
    if request.box is not None:
        check_box(request.box, request)
        top, bottom, left, right = request.box
        bottom += rows if bottom == request.height else 0
        right += columns if right == request.width else 0
        changes["box"] = (top, bottom, left, right)
    return dataclasses.replace(request, **changes)


def smaller(request: Request, factor: float) -> Request:
    """The request at sides smaller by a factor, by the noise of the large one averaged down, with
    what is given resized by the mean of areas.

    Raises:
        RequestError: the factor is less than 1, or leaves less than a pixel.
    """
    sides = tuple(round(side / factor) for side in (request.height, request.width) if factor >= 1)
    if min(sides, default=0) < 1:
        raise RequestError(
            f"a preview smaller by a factor of {factor:g} of {request.height} x {request.width} "
            "pixels (height x width) cannot be made: give a factor from 1 on that leaves some"
        )
    height, width = sides

    def resized(video: Video) -> Video:
        return np.stack([fit(frame, (height, width)) for frame in video])

    box = request.box
    if box is not None:
        scales = (height / request.height,) * 2 + (width / request.width,) * 2
        low_high = (math.floor, math.ceil) * 2
        top, bottom, left, right = (
            whole(edge * scale) for whole, edge, scale in zip(low_high, box, scales, strict=True)
        )
        box = (top, bottom, left, right)
    return dataclasses.replace(
        request,
        height=height,
        width=width,
        given=None if request.given is None else resized(request.given),
        beside=tuple(
            dataclasses.replace(clip, video=resized(clip.video)) for clip in request.beside
        ),
        box=box,
        noise_of=(request.frames, request.height, request.width),
    )


def _up(side: int, cell: int) -> int:
    return -(-side // cell) * cell


def _frames_up(frames: int, temporal: int) -> int:
    return 1 + _up(frames - 1, temporal) if frames > 0 else frames
