"""The transformer's objective on a batch: what it depends on, and what the network is told."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import sora_jax.sample.generate
import sora_jax.train.diffusion_loss
from sora_jax.diffusion.conditioning import ConditioningConfig
from sora_jax.diffusion.loss import DiffusionConfig
from sora_jax.diffusion.times import TimesConfig
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.types import LatentBatch, Layout, Text
from tests.tiny import GRID, latent_batch, make_generator, randomised

KEY = jax.random.key(3)
MODEL = randomised(make_generator, deviation=0.1)


def config(**shares: float) -> DiffusionConfig:
    return DiffusionConfig(TimesConfig(base_tokens=12), ConditioningConfig(**shares))


LOSS = jax.jit(diffusion_loss(config()), static_argnums=3)


def loss(batch: LatentBatch) -> float:
    return float(LOSS(MODEL, batch, KEY, len(batch.text))[0])


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

    def encode_text(self, ids: jax.Array) -> Text:
        return Text(jnp.zeros((*ids.shape, 2)), jnp.ones_like(ids))

    def __call__(self, tokens: jax.Array, layout: Layout, text: Text) -> jax.Array:
        self.seen.append((tokens, layout))
        return jnp.zeros_like(tokens)


def told(batch: LatentBatch, shares: dict[str, float]) -> tuple[jax.Array, Layout, Any]:
    recorder: Any = Recorder()
    _, metrics = diffusion_loss(config(**shares))(recorder, batch, KEY, len(batch.text))
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


def test_training_and_sampling_build_the_field_with_one_function() -> None:
    for name in ("noise_field", "layout_of", "token_noise"):
        trained, sampled = (
            getattr(module, name)
            for module in (sora_jax.train.diffusion_loss, sora_jax.sample.generate)
        )
        assert trained is sampled
