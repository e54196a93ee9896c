"""Whatever training gives of a clip can be asked for, and is told to the network the same way."""

import dataclasses
import operator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.config import load_experiment
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.diffusion.conditioning import noise_field
from sora_jax.diffusion.patterns import (
    FAR_SECONDS,
    ConditioningConfig,
    Pattern,
    draw_pattern,
)
from sora_jax.diffusion.token_errors import clip_sizes
from sora_jax.experiment import Experiment
from sora_jax.models.latents import encode_batch, lay_out
from sora_jax.prepare import cut_out
from sora_jax.sample.denoise import SamplingConfig, field_at, rows_of
from sora_jax.sample.generate import Sampler
from sora_jax.sample.requests import Beside, Request
from sora_jax.types import LatentBatch, VideoBatch
from tests.tiny_models import tiny_sampler

FRAMES, HEIGHT, WIDTH, FPS, CLIPS, CELL = 17, 16, 32, 8.0, 48, 8
PROMPT = "a red circle"


def experiment(*appended: int) -> Experiment:
    """With shares of all that there is to give, on clips of the tiny networks."""
    demo = load_experiment("demo")
    conditioning = ConditioningConfig(
        first_frame=0.2, prefix=0.3, box=0.4, independent=0.5, levels=3
    )
    diffusion = dataclasses.replace(demo.dit_stage.diffusion, conditioning=conditioning)
    return dataclasses.replace(
        demo,
        data=DataConfig(
            (Bucket(FRAMES, HEIGHT, WIDTH, appended=appended),), (ShapeClass(CLIPS, 80),)
        ),
        vae=tiny_sampler(
            [PROMPT], SamplingConfig(), demo.dit_stage.diffusion.times
        ).models.vae.config,
        vae_stage=dataclasses.replace(demo.vae_stage, buckets=()),
        dit_stage=dataclasses.replace(demo.dit_stage, diffusion=diffusion),
    )


def trained(
    sampler: Sampler, made_for: Experiment, videos: np.ndarray
) -> tuple[LatentBatch, Pattern, jax.Array]:
    """Rows of training, and what of them is given, at which level."""
    models = sampler.models
    batch = VideoBatch(
        jnp.asarray(videos),
        jnp.zeros((CLIPS, 8), jnp.int32),
        jnp.full(CLIPS, FPS),
        jnp.arange(CLIPS),
    )
    networks = (models.vae, models.statistics)
    encoded = encode_batch(*networks, batch, models.patch)
    [bucket] = made_for.data.buckets
    if bucket.appended:
        beside = cut_out(made_for, 0, *networks, batch)
        encoded = dataclasses.replace(encoded, appended=beside)
    rows = lay_out(encoded, made_for.grid(bucket), 4, made_for.tokens(bucket))
    conditioning = made_for.dit_stage.diffusion.conditioning
    pattern, level = draw_pattern(
        conditioning, jax.random.key(7), jnp.arange(CLIPS), clip_sizes(rows)
    )
    return rows, jax.tree.map(lambda x: x[:, None], pattern), level


def asked(
    rows: LatentBatch, pattern: Pattern, level: float, video: np.ndarray, row: int
) -> Request:
    """The request for what one clip of training is given."""
    prefix, parts = int(pattern.prefix[row, 0]), int(pattern.parts[row, 0])
    plain = Request(PROMPT, FRAMES, HEIGHT, WIDTH, FPS, seed=row, given_level=level)
    request = dataclasses.replace(plain, start_levels=(1.0,) * parts)
    if prefix:
        return dataclasses.replace(
            request, given=video[: 1 + 4 * (prefix - 1)], beside=beside_of(rows, video, row)
        )
    box = np.asarray(pattern.box[row, 0])
    if not np.isfinite(box).all():
        return dataclasses.replace(request, beside=beside_of(rows, video, row))
    # Of the patches whose centres lie in the box.
    edges = []
    for (start, end), side in zip(box.reshape(2, 2), (HEIGHT, WIDTH), strict=True):
        centres = np.arange(side // CELL) - (side // CELL - 1) / 2
        inside = np.flatnonzero((start <= centres) & (centres < end))
        edges += [int(inside[0]) * CELL, int(inside[-1] + 1) * CELL]
    outside = bool(pattern.is_outside[row, 0])
    return dataclasses.replace(request, given=video, box=tuple(edges), is_outside=outside)


def beside_of(rows: LatentBatch, video: np.ndarray, row: int) -> tuple[Beside, ...]:
    """What is appended to a clip of training, from what its tokens say of themselves."""
    found = []
    for number in range(1, int(rows.appended[row].max()) + 1):
        own = np.asarray(rows.appended[row]) == number
        seconds = float(np.asarray(rows.coordinates)[row, own, 0].min())
        frames = 1 + 4 * int(np.asarray(rows.frames)[row, own].max())
        start = round((seconds if seconds >= 0 else seconds + FAR_SECONDS) * FPS)
        found.append(Beside(video[start : start + frames], seconds))
    return tuple(found)


@pytest.mark.parametrize("appended", [(), (5, 1)])
def test_a_sampler_gives_all_that_training_gives(appended: tuple[int, ...]) -> None:
    made_for = experiment(*appended)
    sampler = tiny_sampler([PROMPT], SamplingConfig(), made_for.dit_stage.diffusion.times)
    videos = np.random.default_rng(0).integers(0, 256, (CLIPS, FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    rows, pattern, level = trained(sampler, made_for, videos)
    kinds = set()
    for row in range(CLIPS):
        request = asked(rows, pattern, float(level[row]), videos[row], row)
        size = sampler.size_of(request)
        inputs = sampler.inputs(size, [request])
        made = rows_of(sampler.models, inputs, size)
        field = field_at(inputs, made, jnp.float32(0.6))
        levels = jnp.concatenate([jnp.full(3, 0.6), level[row, None]])[None, None]
        chosen = slice(row, row + 1)
        one, own = jax.tree.map(operator.itemgetter(chosen), (rows, pattern))
        expected = noise_field(one, own, levels)
        used = np.asarray(one.segments[0]) != 0
        for found, right in (
            (field.per_token(), expected.per_token()),
            (field.loss_weight, expected.loss_weight),
            (made.coordinates, one.coordinates),
            (made.appended, one.appended),
        ):
            np.testing.assert_allclose(found[0], right[0][used], rtol=1e-5, atol=1e-5)
        given = np.asarray(field.loss_weight[0]) == 0
        np.testing.assert_allclose(
            made.latents[0][given], one.latents[0][used][given], rtol=1e-4, atol=1e-4
        )
        kinds.add((request.given_frames, request.box is None, len(request.beside)))
    assert len(kinds) >= 4


@pytest.mark.parametrize("appended", [(), (5, 1)])
def test_given_tokens_know_nothing_of_the_frames_to_be_made(appended: tuple[int, ...]) -> None:
    """All frames that no given token stands for are changed, and given tokens stay. A box goes
    through all frames: there the autoencoder sees a few pixels across its edge."""
    made_for = experiment(*appended)
    sampler = tiny_sampler([PROMPT], SamplingConfig(), made_for.dit_stage.diffusion.times)
    videos = np.random.default_rng(0).integers(0, 256, (CLIPS, FRAMES, HEIGHT, WIDTH, 3), np.uint8)
    rows, pattern, level = trained(sampler, made_for, videos)
    field = noise_field(rows, pattern, jnp.stack([level] * 4, -1)[:, None])
    given = np.asarray((field.loss_weight == 0) & (rows.segments != 0))
    shown = np.zeros((CLIPS, FRAMES), bool)
    for row in range(CLIPS):
        shown[row, : max(4 * int(pattern.prefix[row, 0]) - 3, 0)] = True
        for clip in beside_of(rows, videos[row], row):
            start = round((clip.seconds % FAR_SECONDS) * FPS)
            shown[row, start : start + len(clip.video)] = True
    changed = np.where(shown[..., None, None, None], videos, 255 - videos)
    after, _, _ = trained(sampler, made_for, changed)
    in_time = ~np.isfinite(np.asarray(pattern.box)).all((1, 2))
    own = given & in_time[:, None]
    assert own.any()
    np.testing.assert_allclose(rows.latents[own], after.latents[own], rtol=1e-4, atol=1e-4)
    others = np.asarray(rows.segments != 0) & ~given
    assert np.abs(np.asarray(rows.latents - after.latents)[others]).max() > 0.1
