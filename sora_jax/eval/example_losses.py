"""The loss on captioned clips, encoded as for sampling and laid out one to a row."""

import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np
from jaxtyping import Array

from sora_jax.data.ladder import aligned
from sora_jax.diffusion.times import TimesConfig
from sora_jax.eval.examples import Example
from sora_jax.eval.held_out_loss import ClipLosses, held_out_loss, joined
from sora_jax.models.latents import grid_of, lay_out
from sora_jax.processes import to_host
from sora_jax.sample.generate import Models, Sampler, batch_rows
from sora_jax.sample.stream import encode_clips
from sora_jax.sharding.rules import rows_sharding, ways_of
from sora_jax.types import EncodedBatch

Size = tuple[int, int, int]  # frames, height and width of a clip


def example_losses(sampler: Sampler, examples: Sequence[Example]) -> dict[str, ClipLosses]:
    """Losses by size of clip, such as 9x64x64. Noise and levels of a clip follow from its seed.

    Raises:
        ConfigError: two clips of a size have one seed.
    """
    sizes: dict[Size, list[Example]] = {}
    for example in examples:
        frames, height, width, _ = example.video.shape
        sizes.setdefault((frames, height, width), []).append(example)
    return {
        "x".join(map(str, size)): joined(list(_of_size(sampler, size, own)))
        for size, own in sizes.items()
    }


def _of_size(sampler: Sampler, size: Size, examples: Sequence[Example]) -> Iterator[ClipLosses]:
    """Of each batch; the last one is filled up by its last clip, which then counts once."""
    rows = batch_rows(len(examples), sampler.config.rows, sampler.mesh)
    for start in range(0, len(examples), rows):
        chosen = examples[start : start + rows]
        batch = _encoded(sampler, [*chosen, *[chosen[-1]] * (rows - len(chosen))])
        with jax.set_mesh(sampler.mesh):
            found = _losses(sampler.models, batch, size, sampler.times)
        times, losses = (to_host(each)[: len(chosen), 0] for each in found)
        yield ClipLosses(np.asarray([example.seed for example in chosen]), times, losses)


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
