"""Requests -> videos: the trained networks run from noise to pixels."""

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, UInt8

from sora_jax.diffusion.guidance import looks_away
from sora_jax.diffusion.patterns import Pattern
from sora_jax.diffusion.times import TimesConfig
from sora_jax.errors import ConfigError
from sora_jax.models.generator import Generator
from sora_jax.models.latents import AppendedClip, LatentStatistics, appended_tokens, grid_of
from sora_jax.models.vae import VAE
from sora_jax.sample.denoise import (
    Inputs,
    Models,
    SamplingConfig,
    advance_tokens,
    begin_tokens,
    token_grid,
)
from sora_jax.sample.fields import pattern_of
from sora_jax.sample.requests import Beside, Request, Sample, Size, Video, size_of
from sora_jax.sample.sizes import divisible
from sora_jax.sample.stream import decode_clips, encode_clips, whole
from sora_jax.sharding.rules import parameter_shardings, rows_sharding
from sora_jax.types import Appended

SAME_FRAME = 1e-3  # of a frame: times are floats


def batch_rows(clips: int, most: int, mesh: Mesh) -> int:
    """Rows of the batches for so many clips: as even as can be, at most `most` but for filling up
    to a multiple of the ways that rows are split."""
    ways = mesh.size // rows_sharding(mesh).shard_shape((mesh.size,))[0]
    return math.ceil(clips / math.ceil(clips / most) / ways) * ways


class Captions(Protocol):
    """What makes of captions what the network reads: a Tokenizer, or EmbeddedCaptions."""

    def encode(self, captions: Sequence[str], length: int) -> Any: ...

    def length(self, caption: str) -> int: ...


@dataclasses.dataclass(frozen=True)
class Preview:
    """What is made shown on the way: after each `every` steps, before the last, `show` is called
    with the request's number, the steps that are done, and the clip that they predict."""

    every: int
    show: Callable[[int, int, Video], None]

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ConfigError(f"a preview every {self.every} steps: give 1 or more")


class Sampler:
    """Makes clips of any sizes, in batches of equal ones, rows split over the devices of a mesh."""

    def __init__(
        self,
        generator: Generator,
        vae: VAE,
        statistics: LatentStatistics,
        captions: Captions,
        *,
        text_length: int,
        times: TimesConfig,
        config: SamplingConfig,
        mesh: Mesh,
    ):
        """The networks are laid out over `mesh`; `times` must be those of training."""
        vae, statistics = whole(vae, statistics, mesh)
        self.models = Models(
            generator=jax.device_put(generator, parameter_shardings(generator, mesh)),
            vae=vae,
            statistics=statistics,
        )
        self.captions, self.text_length = captions, text_length
        self.times, self.config, self.mesh = times, config, mesh

    def generate(self, requests: Sequence[Request], preview: Preview | None = None) -> list[Sample]:
        """The clips, in the order of the requests; previews change no bit of them.

        A size that the networks do not divide is made larger, and cut.

        Raises:
            RequestError: a request cannot be made; then nothing is.
        """
        made = [divisible(r, self.models.vae.config.temporal, self.models.cell) for r in requests]
        groups: dict[Size, list[int]] = {}
        for index, request in enumerate(made):
            groups.setdefault(self.size_of(request), []).append(index)
        samples: dict[int, Sample] = {}
        every = self.config.steps if preview is None else preview.every
        for size, indices in groups.items():
            rows = batch_rows(len(indices), self.config.rows, self.mesh)
            for start in range(0, len(indices), rows):
                chosen = indices[start : start + rows]
                batch = [made[index] for index in chosen]
                batch += batch[-1:] * (rows - len(batch))
                for step, tokens, predicted in self.parts(batch, every):
                    is_last = step == self.config.steps
                    videos = self._videos(size, tokens if is_last else predicted)
                    for index, video in zip(chosen, videos, strict=False):
                        if is_last:
                            samples[index] = self._sample(requests[index], video)
                        elif preview is not None:
                            preview.show(index, step, _cut(video, requests[index]))
        return [samples[index] for index in range(len(requests))]

    def size_of(self, request: Request) -> Size:
        """The program that a request needs.

        Raises:
            RequestError: the networks do not divide its sizes, what is given does not fit it or
                leaves nothing to make, or a number is out of range.
        """
        size = size_of(request, self.models.vae.config.temporal, self.models.cell)
        kept = latent_frames(self.models.vae, request.kept_frames)
        if request.box is not None or not (kept or size.beside) or not self._remembers(request):
            return size
        return dataclasses.replace(size, remembered=kept)

    def _remembers(self, request: Request) -> bool:
        """Whether given tokens are the same in all steps, and all of a row on one device."""
        is_told = request.prompt != request.negative_prompt
        apart = self.models.generator.dit.config.given_apart
        is_constant = not looks_away(self.config.guidance, is_told=is_told)
        return apart and is_constant and self.mesh.shape["context"] == 1

    def tokens(self, requests: Sequence[Request]) -> Float[Array, "b n p"]:
        """Normalised latent tokens of requests of one size, as many as fill the mesh, before they
        become pixels; what is behind the clip's own means nothing."""
        [(_, tokens, _)] = self.parts(requests, self.config.steps)
        return tokens

    def parts(
        self, requests: Sequence[Request], every: int
    ) -> Iterator[tuple[int, Float[Array, "b n p"], Float[Array, "b n p"]]]:
        """Of requests as `tokens` has them, after each `every` steps and the last: how many are
        done, the tokens, and the data that they predict."""
        size = self.size_of(requests[0])
        inputs = self.inputs(size, requests)
        # How many frames are given is in the arrays: the program is the same for any number.
        program = dataclasses.replace(size, given_frames=min(size.given_frames, 1))
        with jax.set_mesh(self.mesh):
            state = begin_tokens(self.models, inputs, size=program, config=self.config)
        how: dict[str, Any] = {"size": program, "times": self.times, "config": self.config}
        for first in range(0, self.config.steps, every):
            last = min(first + every, self.config.steps)
            with jax.set_mesh(self.mesh):
                state, *shown = advance_tokens(self.models, inputs, state, (first, last), **how)
            yield last, *shown

    def _videos(self, size: Size, tokens: Array) -> UInt8[np.ndarray, "b t h w 3"]:
        vae, statistics = self.models.vae, self.models.statistics
        grid = token_grid(self.models, size)
        return decode_clips(vae, statistics, tokens, grid, **self._coding)

    def inputs(self, size: Size, requests: Sequence[Request]) -> Inputs:
        """Requests of one size, as many as fill the mesh, as arrays on its devices."""
        grid = token_grid(self.models, size)
        encode, rows = self.captions.encode, len(requests)
        fps = np.array([request.fps for request in requests], np.float32)
        known: Any = np.zeros((rows, 0, self.models.patch**2 * self.models.vae.config.channels))
        if size.given_frames:
            known = self._encoded([request.given for request in requests])
        starts = np.array([(*r.start_levels, r.given_level) for r in requests], np.float32)
        offsets = np.array([(*r.arrives_at, r.given_level) for r in requests], np.float32)
        begun: Any = [request.begun for request in requests]
        arrays: Any = (
            encode([request.prompt for request in requests], self.text_length),
            encode([request.negative_prompt for request in requests], self.text_length),
            fps,
            np.array([request.seed for request in requests], np.int32),
            jnp.pad(known, ((0, 0), (0, grid.tokens - known.shape[1]), (0, 0))),
            self._beside(requests, fps),
            jax.tree.map(lambda *each: np.stack(each), *map(self._pattern, requests)),
            (starts - offsets)[:, None],
            offsets[:, None],
            None if begun[0] is None else np.stack(begun),
        )
        return Inputs(*jax.device_put(arrays, rows_sharding(self.mesh)))

    def _beside(self, requests: Sequence[Request], fps: Float[np.ndarray, " b"]) -> Appended:
        """Tokens of what is given beside each of requests, which have alike."""
        vae, patch = self.models.vae, self.models.patch
        clips = []
        for number in range(len(requests[0].beside)):
            each = [request.beside[number] for request in requests]
            frames, height, width, _ = each[0].video.shape
            grid = grid_of(vae, frames, height, width, patch)
            seconds = np.array([clip.seconds for clip in each], np.float32)
            latents = self._encoded([clip.video for clip in each])
            clips.append(AppendedClip(latents, grid, seconds, np.ones(len(each), bool)))
        return appended_tokens(clips, fps, vae.config.temporal, patch**2 * vae.config.channels)

    def _encoded(self, videos: Sequence[Any]) -> Float[Array, "b n p"]:
        models = self.models
        return encode_clips(models.vae, models.statistics, np.stack(videos), **self._coding)

    @property
    def _coding(self) -> dict[str, Any]:
        return {"patch": self.models.patch, "chunk": self.config.chunk, "mesh": self.mesh}

    def _pattern(self, request: Request) -> Pattern:
        """What is given in place, as of one clip in a row."""
        prefix = latent_frames(self.models.vae, request.kept_frames)
        return pattern_of(request, prefix, self.models.cell)

    def _sample(self, request: Request, video: Video) -> Sample:
        is_cut = self.captions.length(request.prompt) > self.text_length
        asked = _cut(video, request)
        return Sample(
            request=request,
            video=_put_back(asked, request),
            prompt_is_cut=is_cut,
            made_at=None if asked.shape == video.shape else video.shape[:3],
        )


def _cut(video: Video, request: Request) -> Video:
    """What was asked for, of what was made."""
    return video[: request.frames, : request.height, : request.width]


def _put_back(video: Video, request: Request) -> Video:
    """With the pixels that are given where a clip is filled in between or around them: outside a
    box, or at times that have frames beside the clip. Decoded they would be smoother, and of what
    was made a little would reach across the edge of a box. A clip that only goes on from its first
    frames has them decoded, as those that follow are."""
    if request.box is not None and request.given is not None:
        top, bottom, left, right = request.box
        is_made = np.full(video.shape[1:3], request.is_outside)
        is_made[top:bottom, left:right] = not request.is_outside
        return np.where(is_made[..., None], video, request.given)
    given = [(_frame_of(clip, request), clip.video) for clip in request.beside]
    inside = [(at, frames) for at, frames in given if at is not None]
    if inside and request.given is not None:
        inside.append((0, request.given[: request.kept_frames]))
    video = video.copy() if inside else video
    for at, frames in inside:
        video[at : at + len(frames)] = frames
    return video


def _frame_of(clip: Beside, request: Request) -> int | None:
    """The frame of the clip to be made at which another begins; None where it begins between two
    frames or is not all inside."""
    frame = clip.seconds * request.fps
    nearest = round(frame)
    is_inside = 0 <= nearest <= request.frames - len(clip.video)
    return nearest if is_inside and abs(frame - nearest) < SAME_FRAME else None


def latent_frames(vae: VAE, frames: int) -> int:
    """Latent frames of so many pixel frames; 0 of none."""
    return (frames - 1) // vae.config.temporal + 1 if frames else 0
