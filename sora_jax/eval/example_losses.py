"""The loss on captioned clips, encoded as for sampling and laid out one to a row."""

import functools
from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Array

from sora_jax.data.ladder import aligned
from sora_jax.diffusion.times import TimesConfig
from sora_jax.eval.examples import Example
from sora_jax.eval.held_out_loss import ClipLosses, held_out_loss
from sora_jax.models.latents import grid_of, lay_out
from sora_jax.processes import to_host
from sora_jax.sample.denoise import Models
from sora_jax.sample.generate import Sampler, batch_rows
from sora_jax.sample.stream import encode_clips
from sora_jax.sharding.rules import rows_sharding, ways_of
from sora_jax.types import EncodedBatch

Size = tuple[int, int, int]  # frames, height and width of a clip


def example_losses(sampler: Sampler, examples: Sequence[Example]) -> ClipLosses:
    """Losses of a batch of clips of one size. Noise and levels of a clip follow from its seed."""
    frames, height, width, _ = examples[0].video.shape
    rows = batch_rows(len(examples), len(examples), sampler.mesh)
    batch = _encoded(sampler, [*examples, *[examples[-1]] * (rows - len(examples))])
    with jax.set_mesh(sampler.mesh):
        found = _losses(sampler.models, batch, (frames, height, width), sampler.times)
    return ClipLosses(*(to_host(each)[: len(examples), 0] for each in found))


def _encoded(sampler: Sampler, examples: Sequence[Example]) -> EncodedBatch:
    models = sampler.models
    latents = encode_clips(
        models.vae,
        models.statistics,
        np.stack([example.video for example in examples]),
        patch=models.patch,
        chunk=sampler.config.chunk,
        mesh=sampler.mesh,
    )
    prompts = [example.prompt for example in examples]
    on_host = (
        sampler.captions.encode(prompts, sampler.text_length),
        np.asarray([example.fps for example in examples], np.float32),
        np.asarray([example.seed for example in examples], np.int32),
    )
    return EncodedBatch(latents, *jax.device_put(on_host, rows_sharding(sampler.mesh)))


@functools.partial(jax.jit, static_argnames=("size", "times"))
def _losses(
    models: Models, batch: EncodedBatch, size: Size, times: TimesConfig
) -> tuple[Array, Array]:
    """One constant root for all keys: what is compared is compared on the same noise."""
    grid = grid_of(models.vae, *size, models.patch)
    tokens = aligned(grid.tokens, ways_of("tokens"))
    rows = lay_out(batch, grid, models.vae.config.temporal, tokens)
    return held_out_loss(times)(models.generator, rows, jax.random.key(0))
