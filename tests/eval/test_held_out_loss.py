"""The loss on fixed clips: the same for a clip in any batch, and what it says of two models."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.diffusion.loss import DiffusionConfig
from sora_jax.diffusion.patterns import ConditioningConfig
from sora_jax.diffusion.times import TimesConfig
from sora_jax.eval.clip_scores import difference
from sora_jax.eval.held_out_loss import ClipLosses, held_out_loss, stratified_times
from sora_jax.prepare import to_devices
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.step import Moment
from sora_jax.types import LatentBatch
from tests.tiny import eight_device_mesh, latent_batch, make_generator, randomised

KEY = jax.random.key(3)
TIMES = TimesConfig(base_tokens=12)
MODEL = randomised(make_generator, deviation=0.1)
LOSSES = jax.jit(held_out_loss(TIMES))


def losses(model: Any, batch: LatentBatch) -> ClipLosses:
    times, found = (np.asarray(each)[:, 0] for each in LOSSES(model, batch, KEY))
    return ClipLosses(times, found)


def rows(batch: LatentBatch, start: int, stop: int) -> LatentBatch:
    return jax.tree.map(lambda leaf: leaf[start:stop], batch)


def assert_same(found: ClipLosses, expected: ClipLosses) -> None:
    np.testing.assert_allclose(found.times, expected.times, rtol=1e-6)
    np.testing.assert_allclose(found.losses, expected.losses, rtol=1e-5)


def test_a_clip_has_one_loss_in_any_batch_under_any_padding() -> None:
    whole = losses(MODEL, latent_batch(0, rows=8))
    for part in (slice(4, 8), slice(0, 4)):
        found = losses(MODEL, rows(latent_batch(0, rows=8), part.start, part.stop))
        assert_same(found, ClipLosses(whole.times[part], whole.losses[part]))
    assert_same(losses(MODEL, latent_batch(0, rows=8, tokens=24)), whole)


def test_a_clip_has_one_loss_on_any_mesh() -> None:
    batch, mesh = latent_batch(0, rows=8), eight_device_mesh()
    with jax.set_mesh(mesh):
        split = to_devices(jax.tree.map(np.asarray, batch), mesh)
        found = losses(MODEL, split)
    assert_same(found, losses(MODEL, batch))


def test_times_are_one_of_each_stratum_of_those_of_training() -> None:
    ids, tokens = jnp.arange(500), jnp.full(500, 48)
    times = np.asarray(stratified_times(TIMES, KEY, ids, tokens, 8))
    assert (np.diff(times, axis=0) > 0).all()
    normal = jax.scipy.special.ndtri(jnp.arange(1, 8) / 8)
    bounds = np.asarray(2 * jax.nn.sigmoid(normal) / (1 + jax.nn.sigmoid(normal)))  # shift of 2
    assert (times[:-1] <= bounds[:, None] + 1e-6).all()
    assert (times[1:] >= bounds[:, None] - 1e-6).all()


def test_the_mean_is_the_loss_of_training_without_given_frames() -> None:
    batch = latent_batch(0, rows=8)
    config = DiffusionConfig(TIMES, ConditioningConfig(first_frame=0.0, prefix=0.0))
    trained = jax.jit(diffusion_loss(config), static_argnums=3)
    keys = jax.random.split(jax.random.key(1), 40)
    expected = np.mean([trained(MODEL, batch, Moment(key, 0), 8)[0] for key in keys])
    ours = [LOSSES(MODEL, batch, key)[1] for key in keys[:10]]
    assert np.mean(ours) == pytest.approx(expected, rel=0.03)


def test_levels_share_out_the_losses() -> None:
    found = losses(MODEL, latent_batch(0, rows=8))
    scores = found.scores()
    ends = ("0.0-0.2", "0.2-0.4", "0.4-0.6", "0.6-0.8", "0.8-1.0")
    assert set(scores) == {"loss", *(f"loss/level_{each}" for each in ends)}
    inside = (found.times >= 0.4) & (found.times < 0.6)
    assert scores["loss/level_0.4-0.6"].mean() == pytest.approx(found.losses[inside].mean())
    assert scores["loss"].mean() == pytest.approx(found.losses.mean())


def test_pairs_see_ten_times_smaller_differences() -> None:
    batch = latent_batch(0, rows=32)
    near = jax.tree.map(lambda leaf: leaf * 1.01, MODEL)
    one, other = (losses(model, batch).scores()["loss"] for model in (near, MODEL))
    found = difference(one, other)
    assert found.unpaired_error > 10 * found.standard_error
    assert difference(other, other).mean == 0
