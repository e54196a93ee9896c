"""The transformer's objective on a batch: what it depends on, and what the network is told."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sora_jax.diffusion.token_errors
import sora_jax.sample.denoise
import sora_jax.sample.noise
from sora_jax.diffusion.loss import DiffusionConfig
from sora_jax.diffusion.patterns import ConditioningConfig
from sora_jax.diffusion.times import TimesConfig
from sora_jax.prepare import to_devices
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.step import Moment
from sora_jax.types import LatentBatch, Layout, Text
from tests.tiny import GRID, latent_batch, make_generator, randomised

KEY = jax.random.key(3)
MOMENT = Moment(KEY, 0)
MODEL = randomised(make_generator, deviation=0.1)


def config(**shares: float) -> DiffusionConfig:
    return DiffusionConfig(TimesConfig(base_tokens=12), ConditioningConfig(**shares))


LOSS = jax.jit(diffusion_loss(config()), static_argnums=3)


def loss(batch: LatentBatch) -> float:
    return float(LOSS(MODEL, batch, MOMENT, len(batch.text))[0])


def test_padding_costs_nothing() -> None:
    expected = loss(latent_batch(0))
    assert expected > 0.1
    assert loss(latent_batch(0, tokens=20)) == pytest.approx(expected, rel=1e-5)
    batch = latent_batch(0)
    dirty = jnp.where((batch.segments == 0)[..., None], 7.0, batch.latents)
    assert loss(dataclasses.replace(batch, latents=dirty)) == pytest.approx(expected, rel=1e-6)


def test_everything_else_counts() -> None:
    batch, expected = latent_batch(0), loss(latent_batch(0))
    for changes in (
        {"latents": batch.latents + 0.1},
        {"coordinates": batch.coordinates.at[:, 0].add(0.5)},
        {"text": batch.text.at[:, 0].set(1)},
        {"example_id": batch.example_id + 1},
    ):
        assert loss(dataclasses.replace(batch, **changes)) != pytest.approx(expected, rel=1e-5)


@dataclasses.dataclass
class Recorder:
    """Stands where the generator stands and keeps what it is told."""

    seen: list[tuple[jax.Array, Layout]] = dataclasses.field(default_factory=list)

    def encode_text(self, ids: jax.Array, clips: int) -> Text:
        del clips
        return Text(jnp.zeros((*ids.shape, 2)), jnp.ones_like(ids))

    def __call__(self, tokens: jax.Array, layout: Layout, text: Text) -> jax.Array:
        self.seen.append((tokens, layout))
        return jnp.zeros_like(tokens)


def told(batch: LatentBatch, shares: dict[str, float]) -> tuple[jax.Array, Layout, Any]:
    recorder: Any = Recorder()
    _, metrics = diffusion_loss(config(**shares))(recorder, batch, MOMENT, len(batch.text))
    (tokens, layout) = recorder.seen[0]
    return tokens, layout, metrics


def test_given_frames_are_told_as_given_and_shown_nearly_clean() -> None:
    batch = latent_batch(0, grids=(GRID,))
    shares = {"first_frame": 1.0, "prefix": 0.0, "given_noise": 0.0}
    tokens, layout, metrics = told(batch, shares)
    first = np.asarray((batch.frames == 0) & (batch.segments != 0))
    levels = np.take_along_axis(np.asarray(layout.noise_levels), layout.level_index, 1)
    assert not levels[first].any()
    assert (levels[np.asarray(batch.frames) > 0] > 0).all()
    np.testing.assert_array_equal(tokens[first], batch.latents[first])
    assert float(metrics["given_share"]) == 1.0


def test_without_given_frames_all_tokens_of_a_clip_stand_at_one_time() -> None:
    batch = latent_batch(0)
    _, layout, metrics = told(batch, {"first_frame": 0.0, "prefix": 0.0})
    assert not layout.level_index.any()
    assert len(np.unique(layout.noise_levels[:, 0])) == len(batch.text)
    assert float(metrics["given_share"]) == 0.0


def test_the_loss_is_told_by_noise_level() -> None:
    """Against NumPy, clip by clip: what is given has low levels and enters no bin."""
    batch = latent_batch(1, rows=8, grids=(GRID,))
    tokens, layout, metrics = told(batch, {"first_frame": 0.5, "prefix": 0.3})
    levels = np.take_along_axis(np.asarray(layout.noise_levels), layout.level_index, 1)[..., None]
    # `told` answers with velocity 0, so a token's error is its target's square: noise - data.
    data = np.asarray(batch.latents)
    target = (np.asarray(tokens) - data) / np.maximum(levels, 1e-9)
    errors = np.mean(target**2, -1)
    generated = np.asarray(layout.level_index) == 0
    sums, weights = np.zeros(5), np.zeros(5)
    for row in range(8):
        own = generated[row] & np.asarray(batch.segments[row] != 0)
        place = int(levels[row, own][0, 0] * 5)
        sums[place] += errors[row, own].mean() / 8
        weights[place] += 1 / 8
    assert np.count_nonzero(weights) > 2
    assert (layout.noise_levels[:, 1] > 0).any()  # there are noisy given tokens to leave out
    np.testing.assert_allclose(metrics["loss/level/sum"], sums, rtol=1e-3)
    np.testing.assert_allclose(metrics["loss/level/weight"], weights, rtol=1e-5)


def test_noise_levels_add_up_to_the_loss() -> None:
    value, metrics = LOSS(MODEL, latent_batch(0), MOMENT, 4)
    assert float(metrics["loss/level/sum"].sum()) == pytest.approx(float(value), rel=1e-5)
    assert float(metrics["loss/level/weight"].sum()) == pytest.approx(1.0, rel=1e-5)


def packed(batch: LatentBatch, tokens: int) -> LatentBatch:
    """Every two clips of `tokens` tokens in a row with places for three."""

    def in_rows(x: Any, length: int, width: int) -> jax.Array:
        x = jnp.asarray(x)[:, :length].reshape(2, 2 * length, *x.shape[2:])
        return jnp.pad(x, ((0, 0), (0, width - 2 * length), *((0, 0),) * (x.ndim - 2)))

    def of_tokens(x: Any) -> jax.Array:
        return in_rows(x, tokens, 3 * tokens)

    return LatentBatch(
        latents=of_tokens(batch.latents),
        coordinates=of_tokens(batch.coordinates),
        segments=of_tokens(batch.segments * jnp.array([1, 2, 1, 2])[:, None]),
        frames=of_tokens(batch.frames),
        appended=of_tokens(batch.appended),
        text=in_rows(batch.text, 6, 18),
        example_id=in_rows(batch.example_id, 1, 3),
    )


def test_clips_that_share_rows_cost_what_they_do_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it but the noise, which follows from the row."""
    alone = latent_batch(0, tokens=12, grids=(GRID,))
    together = packed(alone, 12)
    noise = jax.random.normal(KEY, alone.latents.shape)
    in_rows = packed(dataclasses.replace(alone, latents=noise), 12).latents
    losses = []
    for batch, drawn, rows in ((alone, noise, 6), (together, in_rows, 2)):
        fixed = functools.partial(lambda drawn, *_: drawn, drawn)
        monkeypatch.setattr(sora_jax.diffusion.token_errors, "token_noise", fixed)
        each = jax.jit(diffusion_loss(config(prefix=0.5)), static_argnums=3)
        value, metrics = each(MODEL, batch, MOMENT, rows)
        of_levels = [*metrics["loss/level/sum"], *metrics["loss/level/weight"]]
        losses.append([float(x) for x in (value, metrics["given_share"], *of_levels)])
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert losses[0][1] > 0


def test_clips_that_share_a_row_see_nothing_of_each_other() -> None:
    batch = packed(latent_batch(0, tokens=12, grids=(GRID,)), 12)
    text, own = MODEL.encode_text(batch.text, 3), batch.segments == 1
    _, layout, _ = told(batch, {})

    @jax.jit
    def of_first(latents: jax.Array, captions: jax.Array) -> jax.Array:
        velocity = MODEL(latents, layout, dataclasses.replace(text, embeddings=captions))
        return jnp.sum(jnp.where(own[..., None], velocity, 0) ** 2)

    for_latents, for_captions = jax.grad(of_first, (0, 1))(batch.latents, text.embeddings)
    for gradient, segments in ((for_latents, batch.segments), (for_captions, text.segments)):
        seen = np.asarray(jnp.abs(gradient).sum(-1) > 0)
        np.testing.assert_array_equal(seen, segments == 1)


def test_rows_of_several_clips_cost_the_same_on_any_mesh() -> None:
    batch = packed(latent_batch(0, tokens=12, grids=(GRID,)), 12)
    mesh = make_mesh(MeshConfig(fsdp=2, context=4))
    with jax.set_mesh(mesh):
        split = to_devices(jax.tree.map(np.asarray, batch), mesh)
        assert float(LOSS(MODEL, split, MOMENT, 2)[0]) == pytest.approx(
            float(LOSS(MODEL, batch, MOMENT, 2)[0]), rel=1e-5
        )


def test_training_and_sampling_build_the_field_with_one_function() -> None:
    trained, sampled = sora_jax.diffusion.token_errors, sora_jax.sample.denoise
    assert trained.noise_field is sampled.noise_field
    assert trained.layout_of is sampled.layout_of
    assert trained.token_noise is sora_jax.sample.noise.token_noise
