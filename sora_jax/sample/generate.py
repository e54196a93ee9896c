"""Requests -> videos: the trained networks run from noise to pixels.

All tasks are one function. They differ in which tokens are given, and that is a noise level of 0,
and in the levels that the others start from.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, UInt8

from sora_jax.data.ladder import aligned
from sora_jax.diffusion.conditioning import NoiseField, layout_of, noise_field
from sora_jax.diffusion.guidance import GuidanceConfig, guided
from sora_jax.diffusion.path import interpolate, token_noise
from sora_jax.diffusion.patterns import Pattern
from sora_jax.diffusion.sampler import Method, integrate
from sora_jax.diffusion.times import TimesConfig, sampling_times
from sora_jax.errors import ConfigError
from sora_jax.models.generator import Generator
from sora_jax.models.latents import (
    AppendedClip,
    LatentStatistics,
    appended_tokens,
    grid_of,
    lay_out,
)
from sora_jax.models.patches import Grid
from sora_jax.models.vae import VAE
from sora_jax.sample.requests import Request, Sample, Size, size_of
from sora_jax.sample.stream import decode_clips, encode_clips, whole
from sora_jax.sharding.rules import constrain, parameter_shardings, rows_sharding, ways_of
from sora_jax.types import Appended, EncodedBatch, LatentBatch, Places, Text


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How noise becomes data. A Heun step costs two evaluations of the network, another one;
    `guidance` 1 follows the caption as learned, more follows it harder; a number is its scale."""

    steps: int = 20
    method: Method = "euler"
    guidance: float | GuidanceConfig = 2.0
    rows: int = 16  # clips of a batch, over all devices
    chunk: int = 16  # latent frames of a clip that the autoencoder takes at once

    def __post_init__(self) -> None:
        if min(self.steps, self.rows, self.chunk) < 1:
            raise ConfigError(
                f"sampling: steps={self.steps}, rows={self.rows} and chunk={self.chunk} must be at "
                "least 1"
            )


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Models:
    """The trained networks."""

    generator: Generator
    vae: VAE
    statistics: LatentStatistics

    @property
    def patch(self) -> int:
        return self.generator.dit.config.patch


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Inputs:
    """Requests of one size, as arrays. Noise levels are slope * t + offset, from t = 1 to 0, and at
    most 1: of each part of a clip, and last of what is given of it."""

    text: "Int[Array, 'b l'] | Text"
    null_text: "Int[Array, 'b l'] | Text"  # the empty caption, or negative prompts
    fps: Float[Array, " b"]
    seed: Int[Array, " b"]
    known: Float[Array, "b n p"]  # normalised latent tokens of given frames, and 0 of all others
    beside: Appended
    pattern: Pattern
    slope: Float[Array, "b 1 m"]
    offset: Float[Array, "b 1 m"]


@functools.partial(jax.jit, static_argnames=("size", "times", "config"))
def sample_tokens(
    models: Models, inputs: Inputs, size: Size, times: TimesConfig, config: SamplingConfig
) -> Float[Array, "b n p"]:
    """Normalised latent tokens of the requested clips; those of given frames are the given ones.

    Compiled once for each size, rows and config. Tokens are split over `context`, and padded so
    that they divide over it: those behind the clip's own mean nothing.
    """
    grid = _grid(models, size)
    rows = rows_of(models, inputs, size)
    places = Places(*map(_split, (rows.coordinates, rows.segments, rows.frames, rows.appended)))
    known = _split(rows.latents)
    # One constant root: a row's noise follows from its seed alone.
    noise = _split(token_noise(jax.random.key(0), inputs.seed, *known.shape[1:]))
    field = functools.partial(field_at, inputs, places)

    text = models.generator.encode_text(inputs.text)
    null_text = models.generator.encode_text(inputs.null_text)
    guide = guided(models.generator, config.guidance)
    in_place_of_given = noise if size.given_frames or size.beside else None

    def velocity(x: Float[Array, "b n p"], field: NoiseField) -> Float[Array, "b n p"]:
        layout, generated = layout_of(field, places), field.loss_weight > 0
        return _split(guide(x, layout, text, null_text, generated, in_place_of_given))

    def noise_at(step: Int[Array, ""]) -> Float[Array, "b n p"]:
        of_step = jax.random.fold_in(jax.random.key(1), step)
        return _split(token_noise(of_step, inputs.seed, *known.shape[1:]))

    start = field(jnp.ones(()))
    tokens = _split(interpolate(known, noise, start.per_token()))
    visited = sampling_times(times, config.steps, grid.tokens)
    made = integrate(velocity, field, tokens, visited, config.method, noise_at)
    return jnp.where(start.loss_weight[..., None] > 0, made, known)


def rows_of(models: Models, inputs: Inputs, size: Size) -> LatentBatch:
    """Clips of one size as rows, laid out as those of training are, padded to what the mesh
    divides."""
    grid = _grid(models, size)
    length = aligned(grid.tokens + inputs.beside.number.shape[1], ways_of("tokens"))
    clips = EncodedBatch(inputs.known, inputs.text, inputs.fps, inputs.seed, inputs.beside)
    return lay_out(clips, grid, models.vae.config.temporal, length)


def field_at(inputs: Inputs, places: Places, time: Float[Array, ""]) -> NoiseField:
    """The field when the sampler stands at a time."""
    levels = jnp.clip(inputs.slope * time + inputs.offset, 0.0, 1.0)
    return noise_field(places, inputs.pattern, levels)


def _grid(models: Models, size: Size) -> Grid:
    return grid_of(models.vae, size.frames, size.height, size.width, models.patch)


def _split(x: Float[Array, "b n ..."]) -> Float[Array, "b n ..."]:
    """Without this the compiler would make whole what is made here, on every device."""
    return constrain(x, "rows", "tokens", *(None,) * (x.ndim - 2))


def batch_rows(clips: int, most: int, mesh: Mesh) -> int:
    """Rows of the batches for so many clips: as even as can be, at most `most` but for filling up
    to a multiple of the ways that rows are split."""
    ways = mesh.size // rows_sharding(mesh).shard_shape((mesh.size,))[0]
    return math.ceil(clips / math.ceil(clips / most) / ways) * ways


class Captions(Protocol):
    """What makes of captions what the network reads: a Tokenizer, or EmbeddedCaptions."""

    def encode(self, captions: Sequence[str], length: int) -> Any: ...

    def length(self, caption: str) -> int: ...


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

    def generate(self, requests: Sequence[Request]) -> list[Sample]:
        """The clips, in the order of the requests.

        Raises:
            RequestError: a request cannot be made; then nothing is.
        """
        groups: dict[Size, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(self.size_of(request), []).append(index)
        samples: dict[int, Sample] = {}
        for size, indices in groups.items():
            rows = batch_rows(len(indices), self.config.rows, self.mesh)
            for start in range(0, len(indices), rows):
                chosen = indices[start : start + rows]
                videos = self._run(size, [requests[index] for index in chosen], rows)
                for index, video in zip(chosen, videos, strict=False):
                    samples[index] = self._sample(requests[index], video)
        return [samples[index] for index in range(len(requests))]

    def size_of(self, request: Request) -> Size:
        """The program that a request needs.

        Raises:
            RequestError: the networks do not divide its sizes, what is given does not fit it or
                leaves nothing to make, or a number is out of range.
        """
        config = self.models.vae.config
        return size_of(request, config.temporal, config.spatial * self.models.patch)

    def _run(self, size: Size, requests: Sequence[Request], rows: int) -> UInt8[np.ndarray, "..."]:
        """Videos of a batch of `rows`, filled up by repeating the last request."""
        filled = [*requests, *[requests[-1]] * (rows - len(requests))]
        vae, statistics = self.models.vae, self.models.statistics
        return decode_clips(
            vae, statistics, self.tokens(filled), _grid(self.models, size), **self._coding
        )

    def tokens(self, requests: Sequence[Request]) -> Float[Array, "b n p"]:
        """Normalised latent tokens of requests of one size, as many as fill the mesh, before they
        become pixels; what is behind the clip's own means nothing."""
        size = self.size_of(requests[0])
        inputs = self.inputs(size, requests)
        # How many frames are given is in the arrays: the program is the same for any number.
        program = dataclasses.replace(size, given_frames=min(size.given_frames, 1))
        with jax.set_mesh(self.mesh):
            return sample_tokens(self.models, inputs, program, self.times, self.config)

    def inputs(self, size: Size, requests: Sequence[Request]) -> Inputs:
        """Requests of one size, as many as fill the mesh, as arrays on its devices."""
        grid = _grid(self.models, size)
        encode, rows = self.captions.encode, len(requests)
        fps = np.array([request.fps for request in requests], np.float32)
        known: Any = np.zeros((rows, 0, self.models.patch**2 * self.models.vae.config.channels))
        if size.given_frames:
            known = self._encoded([request.given for request in requests])
        slopes = [(*request.start_levels, 0.0) for request in requests]
        offsets = [(*[0.0] * size.parts, request.given_level) for request in requests]
        arrays: Any = (
            encode([request.prompt for request in requests], self.text_length),
            encode([request.negative_prompt for request in requests], self.text_length),
            fps,
            np.array([request.seed for request in requests], np.int32),
            jnp.pad(known, ((0, 0), (0, grid.tokens - known.shape[1]), (0, 0))),
            self._beside(requests, fps),
            jax.tree.map(lambda *each: np.stack(each), *map(self._pattern, requests)),
            np.array(slopes, np.float32)[:, None],
            np.array(offsets, np.float32)[:, None],
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
        return pattern_of(request, self.models.vae, self.models.patch)

    def _sample(self, request: Request, video: UInt8[np.ndarray, "t h w 3"]) -> Sample:
        is_cut = self.captions.length(request.prompt) > self.text_length
        return Sample(request=request, video=video, prompt_is_cut=is_cut)


def pattern_of(request: Request, vae: VAE, patch: int) -> Pattern:
    """What is given in place of the one clip of a row, [1]; in NumPy. Tokens that the box cuts
    through are made."""
    cell = vae.config.spatial * patch
    box = np.array([-np.inf, np.inf] * 2, np.float32)
    if request.box is not None:
        centres = np.repeat([request.height, request.width], 2) / cell / 2
        top, bottom, left, right = np.array(request.box) / cell
        low, high = (np.ceil, np.floor) if request.is_outside else (np.floor, np.ceil)
        edges = np.array([low(top), high(bottom), low(left), high(right)])
        box = (edges - centres).astype(np.float32)
    prefix, parts = latent_frames(vae, request.kept_frames), len(request.start_levels)
    counts, is_outside = np.array([[prefix], [parts]], np.int32), np.array([request.is_outside])
    return Pattern(counts[0], box[None], is_outside, counts[1])


def latent_frames(vae: VAE, frames: int) -> int:
    """Latent frames of so many pixel frames; 0 of none."""
    return (frames - 1) // vae.config.temporal + 1 if frames else 0
