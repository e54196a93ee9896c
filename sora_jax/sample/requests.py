"""What a sampler is asked for and what it gives back, and what cannot be asked.

Every way of using the model is a `Request`: its fields say which tokens are given and from which
noise level the others start. tasks.py fills them in for each task by name.
"""

import dataclasses
import math

import numpy as np
from jaxtyping import Float, UInt8

from sora_jax.errors import UserError

MAX_SEED = 2**31 - 1
MAX_PARTS = 7  # noise levels of a clip beside that of what is given
Video = UInt8[np.ndarray, "t h w 3"]


class RequestError(UserError):
    """A clip that cannot be made as it was asked for."""


@dataclasses.dataclass(frozen=True)
class Beside:
    """A clip that is given beside the one to be made: `seconds` from the first frame of that one to
    its own, which may be before it, in it, after it, or far from it."""

    video: Video
    seconds: float


@dataclasses.dataclass(frozen=True)
class Request:
    """A clip to be made. Its noise depends on `seed` alone: not on the batch, not on the device.

    Frames that are `given` are its first ones: 1, or 1 + temporal * k. They stay as they are, or,
    where all of the clip's are given, they are what it is made from: the first `kept` frames stay,
    and what is outside `box` (top, bottom, left, right, in pixels), or inside it where `is_outside`
    says that the rest is made. That is noised to `start_levels` and made anew from there: of 1
    nothing is left, and at 0 nothing is changed. Of several levels each is of a part of the clip,
    of about as many consecutive latent frames.

    Of `noise_of`, another (frames, height, width) and no smaller one, its noise is that of such a
    clip averaged down: it comes out like that clip.

    Parts may stop at `end_levels` on their way to data, where `Sampler.tokens` leaves them, and be
    `begun`: normalised latent tokens of the whole clip, from which parts go on that start below
    level 1. So frames roll (long.py).
    """

    prompt: str
    frames: int
    height: int
    width: int
    fps: float
    seed: int
    given: Video | None = None
    kept: int | None = None  # None: as many as are given, or 0 where all of them are
    box: tuple[int, int, int, int] | None = None
    is_outside: bool = False
    start_levels: tuple[float, ...] = (1.0,)
    end_levels: tuple[float, ...] | None = None  # None: all 0, that is data
    begun: Float[np.ndarray, "n p"] | None = None
    given_level: float = 0.0  # noise on what is given, of which the model is told
    beside: tuple[Beside, ...] = ()
    negative_prompt: str = ""  # what guidance pushes away from
    noise_of: tuple[int, int, int] | None = None
    task: str = "generate"

    @property
    def given_frames(self) -> int:
        return 0 if self.given is None else len(self.given)

    @property
    def arrives_at(self) -> tuple[float, ...]:
        """The noise level at which each part ends."""
        return (0.0,) * len(self.start_levels) if self.end_levels is None else self.end_levels

    @property
    def kept_frames(self) -> int:
        """First frames that stay as they are given."""
        if self.kept is not None:
            return self.kept
        return self.given_frames if self.given_frames < self.frames else 0


@dataclasses.dataclass(frozen=True)
class Sample:
    """A clip that was made: uint8 [t, h, w, 3]."""

    request: Request
    video: Video
    prompt_is_cut: bool  # it has more tokens than the network reads
    made_at: tuple[int, int, int] | None = None  # frames, height, width, before they were cut


@dataclasses.dataclass(frozen=True)
class Size:
    """What a compiled program depends on: the pixels of its clips, the frames given to it and those
    of each clip beside it, the parts that have noise levels of their own, and whose noise it is.
    `remembered`: the first latent frames whose tokens, as those of all beside, are given throughout
    and computed once; None where all tokens are computed in every step."""

    frames: int
    height: int
    width: int
    given_frames: int = 0
    beside: tuple[int, ...] = ()
    parts: int = 1
    noise_of: tuple[int, int, int] | None = None
    remembered: int | None = None


def size_of(request: Request, temporal: int, cell: int) -> Size:
    """The program that a request needs. `cell`: pixels per side of a token.

    Raises:
        RequestError: the networks do not divide its sizes, what is given does not fit it or leaves
            nothing to make, or a number is out of range.
    """
    check_size(request, temporal, cell)
    if request.given is not None:
        _check_video("given frames", request.given, request, temporal)
    for clip in request.beside:
        _check_video("frames that are given beside the clip", clip.video, request, temporal)
        if not math.isfinite(clip.seconds):
            raise RequestError(f"frames given beside the clip at {clip.seconds} s: name a time")
    _check_what_is_made(request, temporal)
    _check_noise(request, temporal, cell)
    return Size(
        request.frames,
        request.height,
        request.width,
        request.given_frames,
        tuple(len(clip.video) for clip in request.beside),
        len(request.start_levels),
        request.noise_of,
    )


def check_size(request: Request, temporal: int, cell: int) -> None:
    """Checks sizes, rate and seed. `cell`: pixels per side of a token.

    Raises:
        RequestError: naming the nearest sizes that work.
    """
    problems = []
    if request.frames < 1 or (request.frames - 1) % temporal:
        fewer = 1 + max(request.frames - 1, 0) // temporal * temporal
        problems.append(f"{fewer} or {fewer + temporal} frames")
    for name, side in (("height", request.height), ("width", request.width)):
        if side < 1 or side % cell:
            less = max(side, 0) // cell * cell
            choices = f"{less} or {less + cell}" if less else f"{cell}"
            problems.append(f"a {name} of {choices}")
    if problems:
        raise RequestError(
            f"a clip of {request.frames} frames of {request.height} x {request.width} pixels "
            f"(height x width) cannot be made; {' and '.join(problems)} would work"
        )
    if not (request.fps > 0 and math.isfinite(request.fps)):
        raise RequestError(f"fps {request.fps} is not a frame rate: it must be positive")
    if not 0 <= request.seed <= MAX_SEED:
        raise RequestError(f"seed {request.seed} is not between 0 and {MAX_SEED}")


def _check_noise(request: Request, temporal: int, cell: int) -> None:
    if request.noise_of is None:
        return
    own = (request.frames, request.height, request.width)
    frames, height, width = request.noise_of
    larger = dataclasses.replace(request, frames=frames, height=height, width=width)
    check_size(larger, temporal, cell)
    if any(other < side for other, side in zip(request.noise_of, own, strict=True)):
        raise RequestError(
            f"the noise of a clip of {_sized(request.noise_of)} is too little for one of "
            f"{_sized(own)}: name a size that is larger, or the same, in all of them"
        )


def _sized(sizes: tuple[int, int, int]) -> str:
    return f"{sizes[0]} frames of {sizes[1]} x {sizes[2]} pixels"


def check_pictures(what: str, video: Video, request: Request) -> None:
    """Raises RequestError where what is given is no video of the request's height and width."""
    if video.dtype != np.uint8 or video.ndim != 4 or video.shape[3] != 3 or not len(video):
        raise RequestError(
            f"{what} are {video.dtype} of shape {video.shape}: give uint8 [t, h, w, 3]"
        )
    if video.shape[1:3] != (request.height, request.width):
        raise RequestError(
            f"the {what} are {video.shape[1]} x {video.shape[2]} pixels (height x width) and "
            f"the clip is {request.height} x {request.width}: resize the one or ask for the other"
        )


def _check_video(what: str, video: Video, request: Request, temporal: int) -> None:
    check_pictures(what, video, request)
    if (len(video) - 1) % temporal:
        fewer = 1 + (len(video) - 1) // temporal * temporal
        raise RequestError(f"{len(video)} frames cannot be given; {fewer} would work")


def _check_what_is_made(request: Request, temporal: int) -> None:
    """Raises RequestError where levels are no such things, what is to be changed is not given, or
    all is given."""
    given, kept, frames = request.given_frames, request.kept_frames, request.frames
    levels, ends = request.start_levels, request.arrives_at
    latent = (request.frames - 1) // temporal + 1
    if not 1 <= len(levels) <= min(MAX_PARTS, latent):
        raise RequestError(
            f"{len(levels)} noise levels to start from: give 1 to {MAX_PARTS}, and no more than "
            f"the clip has latent frames ({latent})"
        )
    if not all(0 <= level <= 1 for level in (*levels, request.given_level)):
        raise RequestError(f"noise levels {levels} and {request.given_level} must be from 0 to 1")
    if len(ends) != len(levels) or not all(0 <= e <= s for e, s in zip(ends, levels, strict=True)):
        raise RequestError(
            f"parts that start at noise levels {levels} cannot end at {ends}: give as many, from 0 "
            "to where each starts"
        )
    is_changed = request.box is not None or (min(levels) < 1 and request.begun is None)
    if given >= frames and not is_changed and not 0 < kept < frames:
        raise RequestError(
            f"{given} of {frames} frames are given: ask for more than are given, or say what is to "
            "be made anew"
        )
    if given > frames or (given < frames and is_changed):
        raise RequestError(
            f"{given} frames are given for a clip of {frames}: to change a clip give all its frames"
        )
    if not 0 <= kept <= given or kept == frames or (kept and (kept - 1) % temporal):
        raise RequestError(
            f"{kept} of {given} given frames cannot be kept of {frames}: 0 or 1 + {temporal}k can"
        )
    if request.box is not None:
        check_box(request.box, request)


def check_box(box: tuple[int, int, int, int], request: Request) -> None:
    """Raises RequestError where the box is not inside the request's pictures."""
    top, bottom, left, right = box
    if not (0 <= top < bottom <= request.height and 0 <= left < right <= request.width):
        raise RequestError(
            f"the box {box} (top, bottom, left, right) is not inside a picture of "
            f"{request.height} x {request.width} pixels (height x width)"
        )
