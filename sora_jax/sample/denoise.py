"""Noise -> latent tokens of requested clips: the programs that the transformer runs in.

All tasks are one function. They differ in which tokens are given, and that is a noise level of 0,
and in the levels that the others start from.
"""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from sora_jax.data.ladder import aligned
from sora_jax.diffusion.conditioning import NoiseField, layout_of, noise_field
from sora_jax.diffusion.guidance import GuidanceConfig, guided
from sora_jax.diffusion.multistep import settled
from sora_jax.diffusion.path import interpolate
from sora_jax.diffusion.patterns import Pattern
from sora_jax.diffusion.sampler import Method, SolverState, advance, begin
from sora_jax.diffusion.times import TimesConfig, sampling_times
from sora_jax.errors import ConfigError
from sora_jax.models.generator import Generator
from sora_jax.models.latents import LatentStatistics, grid_of, lay_out
from sora_jax.models.patches import Grid
from sora_jax.models.vae import VAE
from sora_jax.sample.noise import clip_noise
from sora_jax.sample.remembering import RememberingGuide
from sora_jax.sample.requests import Size
from sora_jax.sharding.rules import constrain, ways_of
from sora_jax.types import Appended, EncodedBatch, LatentBatch, Places, Text


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How noise becomes data. A Heun step costs two evaluations of the network, another one;
    `guidance` 1 follows the caption, or what is given without one, as learned, more follows it
    harder; a number is its scale."""

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

    @property
    def cell(self) -> int:
        """Pixels per side of a token."""
        return self.vae.config.spatial * self.patch


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
    begun: Float[Array, "b n p"] | None = None  # tokens that stand at their levels already


@functools.partial(jax.jit, static_argnames=("size", "times", "config"))
def sample_tokens(
    models: Models, inputs: Inputs, size: Size, times: TimesConfig, config: SamplingConfig
) -> Float[Array, "b n p"]:
    """Normalised latent tokens of the requested clips; those of given frames are the given ones.

    Compiled once for each size, rows and config. Tokens are split over `context`, and padded so
    that they divide over it: those behind the clip's own mean nothing. A Sampler runs it as two
    programs, the noise and any number of steps, so that it may show what is made on the way.
    """
    state = _begin(models, inputs, size, config)
    return _advance(models, inputs, state, (0, config.steps), size, times, config)[1]


def _begin(models: Models, inputs: Inputs, size: Size, config: SamplingConfig) -> SolverState:
    """What clips are made from: noise, as far as they start from it."""
    _, places, known = _laid_out(models, inputs, size)
    start = field_at(inputs, places, jnp.ones(()))
    tokens = interpolate(known, _noise(models, inputs, size, known), start.per_token())
    if inputs.begun is not None:
        goes_on = (start.loss_weight[..., None] > 0) & (settled(start.per_token()) < 1)
        padding = ((0, 0), (0, known.shape[1] - inputs.begun.shape[1]), (0, 0))
        tokens = jnp.where(goes_on, _split(jnp.pad(inputs.begun, padding)), tokens)
    return jax.tree.map(_split, begin(tokens, start, config.method))


def _advance(
    models: Models,
    inputs: Inputs,
    state: SolverState,
    steps: tuple[Any, Any],
    size: Size,
    times: TimesConfig,
    config: SamplingConfig,
) -> tuple[SolverState, Float[Array, "b n p"], Float[Array, "b n p"]]:
    """The state after the steps from the first number to before the second; the tokens there, and
    the data that the last step predicted, both with the given ones."""
    grid, places, known = _laid_out(models, inputs, size)
    field = functools.partial(field_at, inputs, places)
    text = models.generator.encode_text(inputs.text)
    null_text = models.generator.encode_text(inputs.null_text)
    guide: Any = guided(models.generator, config.guidance)
    in_place_of_given, is_told = None, _differ(inputs.text, inputs.null_text)
    if size.remembered is not None:
        of_made = slice(size.remembered * grid.height * grid.width, grid.tokens)
        layout = layout_of(field(jnp.ones(())), places)
        guide = RememberingGuide(models.generator, config.guidance, of_made, state.tokens, layout)
        text, null_text = map(guide.told, (text, null_text))
    elif size.given_frames or size.beside:
        in_place_of_given = _noise(models, inputs, size, known)

    def velocity(x: Float[Array, "b n p"], field: NoiseField) -> Float[Array, "b n p"]:
        layout, generated = layout_of(field, places), field.loss_weight > 0
        return _split(guide(x, layout, text, null_text, generated, in_place_of_given, is_told))

    def noise_at(step: Int[Array, ""]) -> Float[Array, "b n p"]:
        return _noise(models, inputs, size, known, step)

    visited = sampling_times(times, config.steps, grid.tokens)
    state = advance(velocity, field, state, visited, steps, config.method, noise_at)
    state = jax.tree.map(_split, state)
    is_made = field(jnp.ones(())).loss_weight[..., None] > 0
    made, data = (jnp.where(is_made, x, known) for x in (state.tokens, state.data))
    return state, made, data


def _differ(text: Any, null_text: Any) -> Bool[Array, " b"]:
    """Whether a row's caption is another than its null text; else it has none of its own."""
    pairs = zip(*map(jax.tree.leaves, (text, null_text)), strict=True)
    return jnp.any(jnp.stack([jnp.any(a != b, tuple(range(1, a.ndim))) for a, b in pairs]), 0)


begin_tokens = jax.jit(_begin, static_argnames=("size", "config"))
advance_tokens = jax.jit(
    _advance, static_argnames=("size", "times", "config"), donate_argnames="state"
)


def _laid_out(
    models: Models, inputs: Inputs, size: Size
) -> tuple[Grid, Places, Float[Array, "b n p"]]:
    """Where tokens stand, and what is known of them."""
    rows = rows_of(models, inputs, size)
    places = Places(*map(_split, (rows.coordinates, rows.segments, rows.frames, rows.appended)))
    return token_grid(models, size), places, _split(rows.latents)


def _noise(
    models: Models, inputs: Inputs, size: Size, like: Float[Array, "b n p"], step: Any = None
) -> Float[Array, "b n p"]:
    """Noise to begin with, or of a step. Of constant roots: a row's follows from its seed alone."""
    key = jax.random.key(0) if step is None else jax.random.fold_in(jax.random.key(1), step)
    of = None if size.noise_of is None else grid_of(models.vae, *size.noise_of, models.patch)
    shape = (like.shape[1], like.shape[2])
    return _split(clip_noise(key, inputs.seed, shape, token_grid(models, size), of, models.patch))


def rows_of(models: Models, inputs: Inputs, size: Size) -> LatentBatch:
    """Clips of one size as rows, laid out as those of training are, padded to what the mesh
    divides."""
    grid = token_grid(models, size)
    length = aligned(grid.tokens + inputs.beside.number.shape[1], ways_of("tokens"))
    clips = EncodedBatch(inputs.known, inputs.text, inputs.fps, inputs.seed, inputs.beside)
    return lay_out(clips, grid, models.vae.config.temporal, length)


def field_at(inputs: Inputs, places: Places, time: Float[Array, ""]) -> NoiseField:
    """The field when the sampler stands at a time."""
    levels = jnp.clip(inputs.slope * time + inputs.offset, 0.0, 1.0)
    return noise_field(places, inputs.pattern, levels)


def token_grid(models: Models, size: Size) -> Grid:
    """Tokens of clips of a size."""
    return grid_of(models.vae, size.frames, size.height, size.width, models.patch)


def _split(x: Float[Array, "b n ..."]) -> Float[Array, "b n ..."]:
    """Without this the compiler would make whole what is made here, on every device."""
    return constrain(x, "rows", "tokens", *(None,) * (x.ndim - 2))
