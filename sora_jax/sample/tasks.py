"""Every way of prompting the model by its name: each task says what is given, and is a `Request`.

    generate            a caption -> a video, or an image of one frame
    animate             an image is the first frame
    extend              the end of a video is the beginning
    extend_backward     the beginning of a video stands at the end
    connect             the end of one video and the beginning of another
    turn_into           two videos at once: one becomes the other
    loop                the end of a video and its own beginning
    edit                a video is made anew from a noise level, by SDEdit (arXiv:2108.01073)
    edit_box            so is what is inside a box, or outside it
    edit_span           frames between two times are made anew
    interpolate         single frames at times of their own
    remember            frames of another shot, whose characters come again

Frames before what is made are given in place. All others are given beside it, encoded as clips of
their own. Only a clip's own frames come from a task: `context` of them, 1 + temporal * k.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from sora_jax.diffusion.patterns import FAR_SECONDS
from sora_jax.sample.requests import MAX_PARTS, Beside, Request, RequestError, Video

Image = UInt8[np.ndarray, "h w 3"]
Box = tuple[int, int, int, int]
EDIT_STRENGTH, TURN_STRENGTH, BOX_STRENGTH = 0.8, 0.8, 1.0  # where none is asked for


def generate(request: Request) -> Request:
    """Text to video, or to an image where it has one frame."""
    return dataclasses.replace(request, task="generate")


def animate(request: Request, image: Image) -> Request:
    return dataclasses.replace(request, task="animate", given=image[None])


def extend(request: Request, video: Video, context: int) -> Request:
    """A clip that begins with the last `context` frames of a video."""
    _check_context(video, context, request)
    return dataclasses.replace(request, task="extend", given=video[-context:])


def extend_backward(request: Request, video: Video, context: int) -> Request:
    """A clip whose end is made as the first `context` frames of a video are."""
    end = _at_the_end(request, video, context)
    return dataclasses.replace(request, task="extend_backward", beside=(end,))


def connect(request: Request, first: Video, second: Video, context: int) -> Request:
    """A clip from the last `context` frames of one video to the first of another."""
    _check_context(first, context, request)
    end = _at_the_end(request, second, context)
    _check_room(request, 2 * context)
    return dataclasses.replace(request, task="connect", given=first[-context:], beside=(end,))


def turn_into(
    request: Request, first: Video, second: Video, *, strength: float, latent_frames: int
) -> Request:
    """Two videos, as long as the clip, of which one gradually becomes the other: one is faded into
    the other, and made anew from a noise level that is highest where the fade is halfway.
    `latent_frames`: of the clip, which are at levels of their own, or as many parts as there may
    be. The fade is slow at its ends, s = t^2 (3 - 2 t), and a part is at `strength` sin(pi s), s
    the mean over its frames: what shows both videos is neither, and is what noise must hide."""
    for name, video in (("first", first), ("second", second)):
        if len(video) != request.frames or request.frames == 1:
            raise RequestError(
                f"the {name} video has {len(video)} frames and the clip {request.frames}: to turn "
                "one into the other give both as long, of 2 frames or more"
            )
    frame = np.arange(request.frames)
    time = frame / (request.frames - 1)
    share = time**2 * (3 - 2 * time)
    parts = min(MAX_PARTS, latent_frames)
    latent = -(-frame * (latent_frames - 1) // (request.frames - 1))  # the first is of one frame
    part = latent * parts // latent_frames
    levels = tuple(
        strength * math.sin(math.pi * share[part == number].mean()) for number in range(parts)
    )
    weight = share[:, None, None, None]
    faded = np.round((1 - weight) * first + weight * second).astype(np.uint8)
    return dataclasses.replace(request, task="turn_into", given=faded, kept=0, start_levels=levels)


def loop(request: Request, video: Video, context: int) -> Request:
    """A clip from the end of a video to its own beginning: behind the video it closes a loop."""
    return dataclasses.replace(connect(request, video, video, context), task="loop")


def edit(request: Request, video: Video, strength: float) -> Request:
    """The video as the caption has it; of strength 0 it stays, and of 1 nothing of it is left."""
    if strength == 1:
        return generate(request)
    return dataclasses.replace(request, task="edit", given=video, kept=0, start_levels=(strength,))


def edit_box(
    request: Request, video: Video, box: Box, *, is_outside: bool = False, strength: float = 1.0
) -> Request:
    """What is inside the box (top, bottom, left, right, in pixels) is made anew, or what is outside
    it, which is how a picture is made larger."""
    return dataclasses.replace(
        request,
        task="edit_box",
        given=video,
        kept=0,
        box=box,
        is_outside=is_outside,
        start_levels=(strength,),
    )


def edit_span(request: Request, video: Video, start: int, end: int) -> Request:
    """Frames from `start` up to `end` are made anew. The frames before are given in place, and
    those from `end` on beside the clip."""
    if len(video) != request.frames or not 0 <= start < end <= len(video):
        raise RequestError(
            f"frames {start} to {end} of a video of {len(video)} cannot be made anew in a clip of "
            f"{request.frames}: give a video as long, and frames that it has"
        )
    after = (Beside(video[end:], end / request.fps),) if end < len(video) else ()
    before = video[:start] if start else None
    return dataclasses.replace(request, task="edit_span", given=before, beside=after)


def interpolate(request: Request, images: Mapping[float, Image]) -> Request:
    """A clip through images at times, in seconds. One at 0 is its first frame."""
    duration = (request.frames - 1) / request.fps
    for seconds in images:
        if not 0 <= seconds <= duration + 1e-6:
            raise RequestError(
                f"a key frame at {seconds} s is not in a clip from 0 to {duration:.3f} s"
            )
    first = images.get(0.0)
    beside = tuple(
        Beside(image[None], seconds) for seconds, image in sorted(images.items()) if seconds
    )
    given = None if first is None else first[None]
    return dataclasses.replace(request, task="interpolate", given=given, beside=beside)


def remember(request: Request, shots: Sequence[Video]) -> Request:
    """A clip with what is seen in other shots, which stand long before it."""
    beside = tuple(Beside(shot, -FAR_SECONDS) for shot in shots)
    return dataclasses.replace(request, task="remember", beside=beside)


def _at_the_end(request: Request, video: Video, context: int) -> Beside:
    _check_context(video, context, request)
    return Beside(video[:context], (request.frames - context) / request.fps)


def _check_context(video: Video, context: int, request: Request) -> None:
    if not 1 <= context <= len(video):
        raise RequestError(
            f"{context} frames are to be given of a video of {len(video)}: give at least 1, and no "
            "more than it has"
        )
    _check_room(request, context)


def _check_room(request: Request, given: int) -> None:
    if given >= request.frames:
        raise RequestError(
            f"{given} of {request.frames} frames are given: ask for more than are given"
        )
