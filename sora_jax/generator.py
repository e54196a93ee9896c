"""A trained run as one object with a method for each task: what programs sample with.

    generator = Generator.load("runs/demo")
    sample = generator.animate(image, "a red circle moves left")
    sample.video                                   # uint8 [t, h, w, 3]

    generator.long("minute.mp4", "a red circle moves left", seconds=60)

`sora sample --task` and `--seconds` are the same from a shell. Media may be of any size: they are
cropped and resized to that of the clip.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from sora_jax.data.buckets import nearest_size
from sora_jax.data.captions import TextEmbedder
from sora_jax.data.transforms import fit
from sora_jax.eval.likeness import likeness
from sora_jax.experiment import Experiment
from sora_jax.networks import LoadedRun, load_run, make_sampler
from sora_jax.provenance import provenance_of
from sora_jax.sample import tasks
from sora_jax.sample.long import LongRequest
from sora_jax.sample.long_files import write_long
from sora_jax.sample.requests import MAX_SEED, Request, Sample, Video
from sora_jax.sample.sizes import smaller
from sora_jax.sample.tasks import (
    BOX_STRENGTH,
    EDIT_STRENGTH,
    TURN_STRENGTH,
    Box,
    Image,
)


class Generator:
    """Makes clips with the networks of a run.

    Every task takes `size`: frames, height, width, fps and seed, each of any number. By default a
    clip is as long as the longest trained on, or as what is edited, of the trained size that is
    nearest in aspect to what is given, or else the largest, and at the experiment's frame rate.
    `context` frames of a video are given, by default the fewest that show motion.
    """

    def __init__(self, run: LoadedRun, **sampling: Any) -> None:
        """`sampling`: changes to the experiment's SamplingConfig."""
        self.run, self.sampler = run, make_sampler(run, **sampling)

    @classmethod
    def load(
        cls,
        checkpoint: Path | str,
        *,
        like: Experiment | None = None,
        embed: TextEmbedder | None = None,
        **sampling: Any,
    ) -> "Generator":
        """Of a run's directory; raises what `load_run` does."""
        return cls(load_run(Path(checkpoint), like=like, embed=embed), **sampling)

    @property
    def temporal(self) -> int:
        """Pixel frames per latent frame."""
        return self.run.experiment.vae.temporal

    def request(self, prompt: str = "", like: Video | None = None, **size: Any) -> Request:
        """What is asked for, with the defaults filled in. `like`: media to be near in aspect."""
        data = self.run.experiment.data
        longest = max(bucket.frames for bucket in data.buckets)
        frames = size.pop("frames", None)
        frames = longest if frames is None else frames
        wanted = [b for b in data.buckets if b.frames == frames]
        trained = wanted or [b for b in data.buckets if b.frames == longest]
        largest = max(trained, key=lambda bucket: bucket.height * bucket.width)
        default = largest.height, largest.width
        if like is not None:
            default = nearest_size(like.shape[1], like.shape[2], trained) or default
        filled: dict[str, Any] = {
            "height": default[0],
            "width": default[1],
            "fps": data.fps,
            "seed": 0,
        }
        filled |= {name: value for name, value in size.items() if value is not None}
        return Request(prompt, frames, **filled)

    def make(self, request: Request) -> Sample:
        """The clip of a request; raises RequestError where it cannot be made."""
        return self.sampler.generate([request])[0]

    def preview(self, request: Request, factor: float = 4.0) -> Sample:
        """A small clip, of the noise of the request's own averaged down: what to expect of that
        one. `factor`: by which sides are smaller."""
        return self.make(smaller(request, factor))

    def likeness(
        self, previews: Sequence[Sample], samples: Sequence[Sample]
    ) -> list[dict[str, Any]]:
        """How alike samples came out to their previews, and, as the floor, to previews of
        `unrelated` seeds, which it makes: `psnr` and `ssim` of each."""
        unrelated = self.sampler.generate(
            [
                dataclasses.replace(each.request, seed=MAX_SEED - each.request.seed)
                for each in previews
            ]
        )
        return [
            likeness(own.video, sample.video) | {"unrelated": likeness(other.video, sample.video)}
            for own, other, sample in zip(previews, unrelated, samples, strict=True)
        ]

    def generate(self, prompt: str, **size: Any) -> Sample:
        return self.make(tasks.generate(self.request(prompt, **size)))

    def image(self, prompt: str, **size: Any) -> Sample:
        return self.generate(prompt, frames=1, **size)

    def animate(self, image: Image, prompt: str = "", **size: Any) -> Sample:
        request = self.request(prompt, image[None], **size)
        return self.make(tasks.animate(request, fit(image, _sides(request))))

    def extend(
        self, video: Video, prompt: str = "", *, context: int | None = None, **size: Any
    ) -> Sample:
        request = self.request(prompt, video, **size)
        return self.make(tasks.extend(request, fitted(video, request), self._context(context)))

    def extend_backward(
        self, video: Video, prompt: str = "", *, context: int | None = None, **size: Any
    ) -> Sample:
        request = self.request(prompt, video, **size)
        video = fitted(video, request)
        return self.make(tasks.extend_backward(request, video, self._context(context)))

    def connect(
        self,
        first: Video,
        second: Video,
        prompt: str = "",
        *,
        context: int | None = None,
        **size: Any,
    ) -> Sample:
        request = self.request(prompt, first, **size)
        ends = (fitted(first, request), fitted(second, request))
        return self.make(tasks.connect(request, *ends, self._context(context)))

    def turn_into(
        self,
        first: Video,
        second: Video,
        prompt: str = "",
        *,
        strength: float = TURN_STRENGTH,
        **size: Any,
    ) -> Sample:
        request = self.request(prompt, first, **({"frames": len(first)} | size))
        both = (fitted(first, request), fitted(second, request))
        count = 1 + (request.frames - 1) // self.temporal
        made = tasks.turn_into(request, *both, strength=strength, latent_frames=count)
        return self.make(made)

    def loop(
        self, video: Video, prompt: str = "", *, context: int | None = None, **size: Any
    ) -> Sample:
        request = self.request(prompt, video, **size)
        return self.make(tasks.loop(request, fitted(video, request), self._context(context)))

    def edit(
        self, video: Video, prompt: str = "", *, strength: float = EDIT_STRENGTH, **size: Any
    ) -> Sample:
        request = self.request(prompt, video, **({"frames": len(video)} | size))
        return self.make(tasks.edit(request, fitted(video, request), strength))

    def edit_box(
        self,
        video: Video,
        box: Box,
        prompt: str = "",
        *,
        is_outside: bool = False,
        strength: float = BOX_STRENGTH,
        **size: Any,
    ) -> Sample:
        request = self.request(prompt, video, **({"frames": len(video)} | size))
        how: dict[str, Any] = {"is_outside": is_outside, "strength": strength}
        return self.make(tasks.edit_box(request, fitted(video, request), box, **how))

    def edit_span(
        self, video: Video, start: int, end: int, prompt: str = "", **size: Any
    ) -> Sample:
        request = self.request(prompt, video, **({"frames": len(video)} | size))
        return self.make(tasks.edit_span(request, fitted(video, request), start, end))

    def interpolate(self, images: Mapping[float, Image], prompt: str = "", **size: Any) -> Sample:
        """`images` by their times in seconds."""
        first = next(iter(images.values()))
        request = self.request(prompt, first[None], **size)
        fits = {seconds: fit(image, _sides(request)) for seconds, image in images.items()}
        return self.make(tasks.interpolate(request, fits))

    def remember(self, shots: Sequence[Video], prompt: str = "", **size: Any) -> Sample:
        request = self.request(prompt, shots[0], **size)
        return self.make(tasks.remember(request, [fitted(shot, request) for shot in shots]))

    def long(
        self,
        output: Path | str,
        prompt: str = "",
        *,
        seconds: float,
        start: Image | Video | None = None,
        window: int | None = None,
        context: int | None = None,
        **how: Any,
    ) -> Path:
        """Writes a clip of any duration as an MP4, which a job that was stopped goes on with.

        Args:
            start: an image or a video that it goes on from.
            window: frames that are made at once, by default as many as the longest trained on.
            how: levels, history_level and story, as `LongRequest` has them, and size.
        """
        own = {n: how.pop(n) for n in ("levels", "history_level", "story") if n in how}
        video = None if start is None else start.reshape(-1, *start.shape[-3:])
        first = self.request(prompt, video, frames=window, **how)
        if video is not None:
            fits = fitted(video, first)
            is_image = len(video) == 1
            first = (
                tasks.animate(first, fits[0])
                if is_image
                else tasks.extend(first, fits, self._context(context))
            )
        frames = round(seconds * first.fps)
        asked = self.long_request(first, frames, context=context, **own)
        write_long(self.sampler, asked, Path(output), provenance_of(self.run, self.sampler))
        return Path(output)

    def long_request(
        self,
        first: Request,
        frames: int,
        *,
        context: int | None = None,
        history_level: float | None = None,
        **more: Any,
    ) -> LongRequest:
        """A clip of so many frames with the defaults filled in. Noise on what goes before is the
        mean of that on what is given in training."""
        if history_level is None:
            conditioning = self.run.experiment.dit_stage.diffusion.conditioning
            history_level = conditioning.given_noise / 2
        return LongRequest(
            first, frames, self._context(context), history_level=history_level, **more
        )

    def _context(self, frames: int | None) -> int:
        return 1 + self.temporal if frames is None else frames


def fitted(video: Video, request: Request) -> Video:
    """A video cropped and resized to a request's size."""
    return np.stack([fit(frame, _sides(request)) for frame in video])


def _sides(request: Request) -> tuple[int, int]:
    return request.height, request.width
