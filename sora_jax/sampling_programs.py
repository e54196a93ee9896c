"""An experiment's programs of sampling, lowered without weights: the transformer's, from noise to
latents, and the autoencoder's, of one chunk of a stream. They are the ones that `Sampler` runs, but
that it has the noise apart from the steps."""

import dataclasses
import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import Mesh, NamedSharding

from sora_jax.data.ladder import aligned
from sora_jax.diffusion.patterns import Pattern
from sora_jax.experiment import Experiment
from sora_jax.models.latents import LatentStatistics
from sora_jax.models.patches import Grid
from sora_jax.networks import make_generator, make_vae
from sora_jax.sample.denoise import Inputs, Models, sample_tokens
from sora_jax.sample.generate import batch_rows
from sora_jax.sample.requests import Request, Size, check_size
from sora_jax.sample.stream import chunk_lengths, decode_chunk, encode_chunk
from sora_jax.scaling.flops import Row, dit_flops, text_flops, vae_chunk_flops
from sora_jax.sharding.mesh import picture_mesh
from sora_jax.sharding.rules import (
    clips_sharding,
    parameter_shardings,
    replicated,
    rows_sharding,
)
from sora_jax.types import Appended, Text

What = Literal["sample", "vae_encode", "vae_decode"]


@dataclasses.dataclass(frozen=True)
class Clip:
    """A size of clips to make: pixels."""

    frames: int
    height: int
    width: int


@dataclasses.dataclass(frozen=True)
class Program:
    """A program of sampling, ready to compile for `mesh`, whose devices need not exist.

    `runs`: how often a batch of clips needs it. `tokens` and `flops` are of one run, over all
    devices; `held` what it is given that stays, by kind.
    """

    lowered: jax.stages.Lowered
    mesh: Mesh
    rows: int
    tokens: int
    runs: int
    flops: int
    held: dict[str, Any]


def program_of(experiment: Experiment, what: What, clip: Clip, mesh: Mesh) -> Program:
    """A program of sampling clips of a size, in the batches of `experiment.sampling`.

    Raises:
        RequestError: the networks do not divide the size; names the nearest that they do.
    """
    vae, patch = experiment.vae, experiment.dit.patch
    request = Request("", clip.frames, clip.height, clip.width, experiment.data.fps, seed=0)
    check_size(request, vae.temporal, vae.spatial * patch)
    rows = batch_rows(experiment.sampling.rows, experiment.sampling.rows, mesh)
    if what == "sample":
        return _sampling(experiment, clip, rows, mesh)
    return _coding(experiment, what, clip, rows, mesh)


def _sampling(experiment: Experiment, clip: Clip, rows: int, mesh: Mesh) -> Program:
    """All steps from noise to latents, with the captions' encoding."""
    sampling, dit, data = experiment.sampling, experiment.dit, experiment.data
    size = Size(clip.frames, clip.height, clip.width)
    channels = dit.patch**2 * experiment.vae.channels
    of_rows: Any = functools.partial(jax.ShapeDtypeStruct, sharding=rows_sharding(mesh))
    with jax.set_mesh(mesh):
        shapes = jax.eval_shape(lambda: make_generator(experiment, nnx.Rngs(0)))
        generator = jax.tree.map(_placed, shapes, parameter_shardings(shapes, mesh))
        vae, statistics = _autoencoder(experiment, mesh)
        text: Any = of_rows((rows, data.text_length), jnp.int32)
        if experiment.text.source == "given":
            embeddings = (rows, data.text_length, experiment.text.width)
            text = Text(of_rows(embeddings, jnp.bfloat16), text)
        numbers, counts = (
            functools.partial(of_rows, dtype=kind) for kind in (jnp.float32, jnp.int32)
        )
        inputs = Inputs(
            text=text,
            null_text=text,
            fps=numbers((rows,)),
            seed=counts((rows,)),
            known=numbers((rows, _grid(experiment, clip).tokens, channels)),
            beside=Appended(
                numbers((rows, 0, channels)), numbers((rows, 0, 3)), *(counts((rows, 0)),) * 2
            ),
            pattern=Pattern(
                counts((rows, 1)),
                numbers((rows, 1, 4)),
                of_rows((rows, 1), bool),
                counts((rows, 1)),
            ),
            slope=numbers((rows, 1, 2)),
            offset=numbers((rows, 1, 2)),
        )
        times = experiment.dit_stage.diffusion.times
        lowered = sample_tokens.lower(
            Models(generator, vae, statistics), inputs, size=size, times=times, config=sampling
        )
    tokens = aligned(_grid(experiment, clip).tokens, mesh.shape["context"])
    row = Row(tokens, experiment.vae.channels, data.text_length, experiment.text.width)
    evaluations = sampling.steps * (2 if sampling.method == "heun" else 1)
    flops = 2 * evaluations * dit_flops(dit, row).total
    flops += 2 * text_flops(experiment.text, data.text_length)
    return Program(lowered, mesh, rows, tokens, 1, rows * flops, {"parameters": generator})


def _coding(experiment: Experiment, what: What, clip: Clip, rows: int, mesh: Mesh) -> Program:
    """A chunk of a clip: one from its middle, with a state of what came before, if it has any."""
    config, grid = experiment.vae, _grid(experiment, clip)
    patch = experiment.dit.patch
    height, width = grid.height * patch, grid.width * patch
    lengths = chunk_lengths(grid.frames, experiment.sampling.chunk)
    pictures = picture_mesh(mesh, rows, height, width)
    code = decode_chunk if what == "vae_decode" else encode_chunk
    networks = _autoencoder(experiment, pictures)

    def chunk(length: int, frames: int) -> Any:
        shape: tuple[int, ...] = (rows, frames, clip.height, clip.width, 3)
        if what == "vae_decode":
            shape = (rows, length, height, width, config.channels)
        kind = jnp.float32 if what == "vae_decode" else jnp.uint8
        return jax.ShapeDtypeStruct(shape, kind, sharding=clips_sharding(pictures))

    first = 1 + config.temporal * (lengths[0] - 1)
    given, state = chunk(lengths[0], first), None
    with jax.set_mesh(pictures):
        if len(lengths) > 1:
            _, state = jax.eval_shape(code, *networks, given, None)
            state = jax.tree.map(lambda leaf: _placed(leaf, clips_sharding(pictures)), state)
            given = chunk(lengths[-1], config.temporal * lengths[-1])
        lowered = code.lower(*networks, given, state)
    encode, decode = vae_chunk_flops(
        config, lengths[-1], clip.height, clip.width, first=len(lengths) == 1
    )
    tokens = lengths[-1] * grid.height * grid.width
    flops = rows * (decode if what == "vae_decode" else encode)
    held = {"parameters": networks, "state": state}
    return Program(lowered, pictures, rows, tokens, len(lengths), flops, held)


def _autoencoder(experiment: Experiment, mesh: Mesh) -> Any:
    """The autoencoder and its statistics, whole on every device."""

    def make() -> Any:
        channels = jnp.zeros(experiment.vae.channels)
        return make_vae(experiment, nnx.Rngs(0)), LatentStatistics(channels, channels)

    return jax.tree.map(lambda leaf: _placed(leaf, replicated(mesh)), jax.eval_shape(make))


def _placed(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _grid(experiment: Experiment, clip: Clip) -> Grid:
    side = experiment.vae.spatial * experiment.dit.patch
    frames = (clip.frames - 1) // experiment.vae.temporal + 1
    return Grid(frames, clip.height // side, clip.width // side)
