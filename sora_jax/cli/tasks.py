"""What `sora sample` was given for a task -> requests: media from files, fitted to the clip."""

import collections
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from sora_jax.data.footage import read_frames, read_image, scan_video
from sora_jax.data.transforms import fit_changes
from sora_jax.errors import ConfigError
from sora_jax.generator import Generator, fitted
from sora_jax.sample import tasks
from sora_jax.sample.requests import Request, Video

# How many images and videos each task takes; None: one or more.
TAKES: dict[str, tuple[int | None, int | None]] = {
    "generate": (0, 0),
    "animate": (1, 0),
    "extend": (0, 1),
    "extend_backward": (0, 1),
    "connect": (0, 2),
    "turn_into": (0, 2),
    "loop": (0, 1),
    "edit": (0, 1),
    "edit_box": (0, 1),
    "edit_span": (0, 1),
    "interpolate": (None, 0),
    "remember": (None, 0),
}
CHANGED = ("turn_into", "edit", "edit_box", "edit_span")  # as long as their videos


@dataclasses.dataclass(frozen=True)
class Asked:
    """The flags that are about the clip: files, and numbers where None stands for a default."""

    task: str | None
    images: Sequence[str]
    videos: Sequence[str]
    context: int | None  # frames that are given of a video
    strength: float | None
    box: tuple[int, int, int, int] | None
    is_outside: bool
    span: tuple[float, float] | None  # seconds
    at: Sequence[float]  # seconds, of each image
    frames: int | None
    height: int | None
    width: int | None
    fps: float | None

    def named(self) -> str:
        """The task, by default by the media that are there.

        Raises:
            ConfigError: it takes other media.
        """
        if self.images and self.videos and self.task is None:
            raise ConfigError("give one of --image and --video, or say which --task takes both")
        default = "animate" if self.images else "extend" if self.videos else "generate"
        task = self.task or default
        for kind, files, takes in zip(
            ("image", "video"), (self.images, self.videos), TAKES[task], strict=True
        ):
            if len(files) != takes and (takes is not None or not files):
                wanted = "at least one" if takes is None else takes
                raise ConfigError(
                    f"--task {task} takes {wanted} --{kind}, and {len(files)} are given"
                )
        return task


def make_requests(generator: Generator, asked: Asked, prompts: Sequence[str]) -> list[Request]:
    """A request for each prompt, all of one size; says what is done to the media.

    Raises:
        MediaError: a file cannot be read.
        ConfigError: the task takes other media or numbers, or a video is too short.
        RequestError: they do not go together.
    """
    task = asked.named()
    context = 1 + generator.temporal if asked.context is None else asked.context
    if context < 1:
        raise ConfigError(f"--given_frames {context} must be at least 1")
    media = [read_image(Path(path))[None] for path in asked.images]
    media += [_video(path, task, context, asked, generator.temporal) for path in asked.videos]
    fps = asked.fps
    if fps is None and asked.videos:
        fps = scan_video(Path(asked.videos[0])).fps
    frames = len(media[0]) if task in CHANGED else asked.frames
    plain = generator.request(
        like=media[0] if media else None,
        frames=frames,
        height=asked.height,
        width=asked.width,
        fps=fps,
    )
    if min(plain.height, plain.width) < 1:
        raise ConfigError(f"--height {plain.height} and --width {plain.width} must be positive")
    for path, video in zip((*asked.images, *asked.videos), media, strict=True):
        for change in fit_changes(video.shape[1], video.shape[2], (plain.height, plain.width)):
            print(f"{path}: {change}")
    make = _task(task, asked, [fitted(video, plain) for video in media], context, generator)
    return [make(dataclasses.replace(plain, prompt=prompt)) for prompt in prompts]


def _video(path: str, task: str, context: int, asked: Asked, temporal: int) -> Video:
    """The frames of a video that a task needs: of one that goes on, no more than its end."""
    found = read_frames(Path(path))
    if task == "extend":
        frames = list(collections.deque(found, maxlen=context))
    elif task in CHANGED:
        frames = list(itertools.islice(found, asked.frames))
        fitting = 1 + (len(frames) - 1) // temporal * temporal
        if task == "edit_span" and fitting < len(frames):  # what is after the span stays
            print(f"{path}: cut to {fitting} of its frames, which are 1 + {temporal}k")
            frames = frames[:fitting]
    else:
        frames = list(found)
    if len(frames) < context and task not in CHANGED:
        raise ConfigError(
            f"{path} has {len(frames)} frames and {context} are to be given: lower --given_frames"
        )
    return np.stack(frames)


def _task(
    task: str, asked: Asked, media: list[Video], context: int, generator: Generator
) -> Callable[[Request], Request]:
    """Request -> request of a task with its media."""
    strength = asked.strength

    def interpolated(request: Request) -> Request:
        if len(asked.at) != len(media):
            raise ConfigError(
                f"{len(media)} images and {len(asked.at)} times: give --at, in seconds, for each"
            )
        images = {seconds: video[0] for seconds, video in zip(asked.at, media, strict=True)}
        return tasks.interpolate(request, images)

    def turned(request: Request) -> Request:
        latent = 1 + (request.frames - 1) // generator.temporal
        how = tasks.TURN_STRENGTH if strength is None else strength
        return tasks.turn_into(request, media[0], media[1], strength=how, latent_frames=latent)

    def boxed(request: Request) -> Request:
        if asked.box is None:
            raise ConfigError("--task edit_box needs --box TOP,BOTTOM,LEFT,RIGHT, in pixels")
        how = tasks.BOX_STRENGTH if strength is None else strength
        return tasks.edit_box(
            request, media[0], asked.box, is_outside=asked.is_outside, strength=how
        )

    def spanned(request: Request) -> Request:
        if asked.span is None:
            raise ConfigError("--task edit_span needs --span START,END, in seconds")
        start, end = (round(seconds * request.fps) for seconds in asked.span)
        return tasks.edit_span(request, media[0], start, end)

    return {
        "generate": tasks.generate,
        "animate": lambda request: tasks.animate(request, media[0][0]),
        "extend": lambda request: tasks.extend(request, media[0], context),
        "extend_backward": lambda request: tasks.extend_backward(request, media[0], context),
        "connect": lambda request: tasks.connect(request, media[0], media[1], context),
        "turn_into": turned,
        "loop": lambda request: tasks.loop(request, media[0], context),
        "edit": lambda request: tasks.edit(
            request, media[0], tasks.EDIT_STRENGTH if strength is None else strength
        ),
        "edit_box": boxed,
        "edit_span": spanned,
        "interpolate": interpolated,
        "remember": lambda request: tasks.remember(request, media),
    }[task]
