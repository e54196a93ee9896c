"""Captions, and frames to go on from, -> videos: the trained networks run from noise to pixels.

Text to video, text to image, animating an image and continuing a clip are one function: they differ
in how many of the first latent frames are given, and that is a noise level of 0.
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
from sora_jax.diffusion.guidance import guided
from sora_jax.diffusion.path import token_noise
from sora_jax.diffusion.sampler import Method, integrate
from sora_jax.diffusion.times import TimesConfig, sampling_times
from sora_jax.errors import ConfigError, UserError
from sora_jax.models.generator import Generator
from sora_jax.models.latents import LatentStatistics, grid_of, token_coordinates
from sora_jax.models.patches import token_frames
from sora_jax.models.vae import VAE
from sora_jax.sample.stream import decode_clips, encode_clips, whole
from sora_jax.sharding.rules import constrain, parameter_shardings, rows_sharding, ways_of
from sora_jax.types import Text

MAX_SEED = 2**31 - 1


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How noise becomes data. A Heun step costs two evaluations of the network, an Euler step one;
    `guidance` 1 follows the caption as learned, more follows it harder."""

    steps: int = 20
    method: Method = "euler"
    guidance: float = 2.0
    rows: int = 16  # clips of a batch, over all devices
    chunk: int = 16  # latent frames of a clip that the autoencoder takes at once

    def __post_init__(self) -> None:
        if min(self.steps, self.rows, self.chunk) < 1:
            raise ConfigError(
                f"sampling: steps={self.steps}, rows={self.rows} and chunk={self.chunk} must be at "
                "least 1"
            )


class RequestError(UserError):
    """A clip that cannot be made as it was asked for."""


@dataclasses.dataclass(frozen=True)
class Request:
    """A clip to be made. Its noise depends on `seed` alone: not on the batch, not on the device."""

    prompt: str
    frames: int
    height: int
    width: int
    fps: float
    seed: int
    given: UInt8[np.ndarray, "t h w 3"] | None = None  # first frames: 1, or 1 + temporal * k


@dataclasses.dataclass(frozen=True)
class Sample:
    """A clip that was made: uint8 [t, h, w, 3]."""

    request: Request
    video: UInt8[np.ndarray, "t h w 3"]
    given: tuple[bool, ...]  # of each latent frame
    prompt_is_cut: bool  # it has more tokens than the network reads


@dataclasses.dataclass(frozen=True)
class Size:
    """What a compiled program depends on: the pixels of its clips, and the frames given to it."""

    frames: int
    height: int
    width: int
    given_frames: int


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
    """Requests of one size, as arrays."""

    text: "Int[Array, 'b l'] | Text"
    null_text: "Int[Array, 'b l'] | Text"  # the empty caption
    fps: Float[Array, " b"]
    seed: Int[Array, " b"]
    given: Float[Array, "b m p"]  # normalised latent tokens of given frames; m may be 0


@functools.partial(jax.jit, static_argnames=("size", "times", "config"))
def sample_tokens(
    models: Models, inputs: Inputs, size: Size, times: TimesConfig, config: SamplingConfig
) -> Float[Array, "b n p"]:
    """Normalised latent tokens of the requested clips; those of given frames are the given ones.

    Compiled once for each size, rows and config. Tokens are split over `context`, and padded so
    that they divide over it: those behind the clip's own mean nothing.
    """
    vae = models.vae
    grid = grid_of(vae, size.frames, size.height, size.width, models.patch)
    rows, length = inputs.seed.shape[0], aligned(grid.tokens, ways_of("tokens"))
    # One constant root: a row's noise follows from its seed alone.
    channels = models.patch**2 * vae.config.channels
    tokens = _split(token_noise(jax.random.key(0), inputs.seed, length, channels))
    if size.given_frames:
        tokens = jnp.concatenate([inputs.given, tokens[:, inputs.given.shape[1] :]], 1)

    def every_row(x: Array) -> Array:
        return _split(jnp.broadcast_to(x, (rows, length)))

    segments = every_row((jnp.arange(length) < grid.tokens).astype(jnp.int32))
    frames = every_row(token_frames(grid, length))
    given_frames = jnp.full((rows, 1), latent_frames(vae, size.given_frames))
    coordinates = _split(token_coordinates(grid, vae.config.temporal, inputs.fps, length))

    def field_at(time: Float[Array, ""]) -> NoiseField:
        levels = jnp.full((rows, 1), time)
        return noise_field(frames, segments, given_frames, levels, jnp.zeros((rows, 1)))

    text = models.generator.encode_text(inputs.text)
    null_text = models.generator.encode_text(inputs.null_text)
    velocity = guided(models.generator, config.guidance)
    return integrate(
        lambda x, field: _split(
            velocity(x, layout_of(field, coordinates, segments), text, null_text)
        ),
        field_at,
        _split(tokens),
        sampling_times(times, config.steps, grid.tokens),
        config.method,
    )


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
                    samples[index] = self._sample(requests[index], size, video)
        return [samples[index] for index in range(len(requests))]

    def size_of(self, request: Request) -> Size:
        """The program that a request needs.

        Raises:
            RequestError: the networks do not divide its sizes, the given frames do not fit it, or
                a number is out of range.
        """
        config = self.models.vae.config
        check_size(request, config.temporal, config.spatial * self.models.patch)
        given = 0 if request.given is None else check_given(request, config.temporal)
        return Size(request.frames, request.height, request.width, given)

    def _run(self, size: Size, requests: Sequence[Request], rows: int) -> UInt8[np.ndarray, "..."]:
        """Videos of a batch of `rows`, filled up by repeating the last request."""
        filled = [*requests, *[requests[-1]] * (rows - len(requests))]
        models, encode = self.models, self.captions.encode
        vae, statistics = models.vae, models.statistics
        how: Any = {"patch": models.patch, "chunk": self.config.chunk, "mesh": self.mesh}
        given: Any = np.zeros((rows, 0, models.patch**2 * vae.config.channels), np.float32)
        if size.given_frames:
            frames = np.stack([request.given for request in filled if request.given is not None])
            given = encode_clips(vae, statistics, frames, **how)
        arrays: Any = (
            encode([request.prompt for request in filled], self.text_length),
            encode([""] * rows, self.text_length),
            np.array([request.fps for request in filled], np.float32),
            np.array([request.seed for request in filled], np.int32),
            given,
        )
        inputs = Inputs(*jax.device_put(arrays, rows_sharding(self.mesh)))
        with jax.set_mesh(self.mesh):
            tokens = sample_tokens(models, inputs, size=size, times=self.times, config=self.config)
        grid = grid_of(vae, size.frames, size.height, size.width, models.patch)
        return decode_clips(vae, statistics, tokens, grid, **how)

    def _sample(self, request: Request, size: Size, video: UInt8[np.ndarray, "t h w 3"]) -> Sample:
        vae = self.models.vae
        given = latent_frames(vae, size.given_frames)
        return Sample(
            request=request,
            video=video,
            given=tuple(frame < given for frame in range(latent_frames(vae, size.frames))),
            prompt_is_cut=self.captions.length(request.prompt) > self.text_length,
        )


def latent_frames(vae: VAE, frames: int) -> int:
    """Latent frames of so many pixel frames; 0 of none."""
    return (frames - 1) // vae.config.temporal + 1 if frames else 0


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


def check_given(request: Request, temporal: int) -> int:
    """How many frames are given.

    Raises:
        RequestError: they are of another size, not 1 + temporal * k, or leave nothing to make.
    """
    given = request.given
    assert given is not None
    if given.dtype != np.uint8 or given.ndim != 4 or given.shape[3] != 3 or not len(given):
        raise RequestError(
            f"given frames are {given.dtype} of shape {given.shape}: give uint8 [t, h, w, 3]"
        )
    if given.shape[1:3] != (request.height, request.width):
        raise RequestError(
            f"the given frames are {given.shape[1]} x {given.shape[2]} pixels (height x width) and "
            f"the clip is {request.height} x {request.width}: resize the one or ask for the other"
        )
    if (len(given) - 1) % temporal:
        fewer = 1 + (len(given) - 1) // temporal * temporal
        raise RequestError(f"{len(given)} frames cannot be given; {fewer} would work")
    if len(given) >= request.frames:
        raise RequestError(
            f"{len(given)} of {request.frames} frames are given: ask for more than are given"
        )
    return len(given)
