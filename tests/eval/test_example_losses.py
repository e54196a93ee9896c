"""The loss on captioned clips: one for each, and what it depends on."""

import copy
import dataclasses

import jax
import numpy as np
import pytest

from sora_jax.data.buckets import Bucket
from sora_jax.diffusion.times import TimesConfig
from sora_jax.eval.example_losses import example_losses
from sora_jax.eval.examples import world_examples
from sora_jax.sample.denoise import SamplingConfig
from sora_jax.world.scene import WorldConfig
from tests.tiny_models import tiny_sampler

EXAMPLES = world_examples(
    WorldConfig(max_objects=2), [Bucket(1, 32, 32), Bucket(5, 32, 32)], 8.0, 7, first_seed=7_000
)
SAMPLER = tiny_sampler(
    ("a small red circle moves left fast",), SamplingConfig(steps=2), TimesConfig()
)


@pytest.mark.parametrize("frames", [1, 5])
def test_a_clip_has_one_loss_in_any_batch(frames: int) -> None:
    chosen = [example for example in EXAMPLES if len(example.video) == frames]
    whole = example_losses(SAMPLER, chosen)
    assert whole.losses.shape == (len(chosen), 8)
    assert (whole.losses > 0).all()
    for part in (chosen[:1], chosen[1:]):
        found, first = example_losses(SAMPLER, part), chosen.index(part[0])
        same = slice(first, first + len(part))
        np.testing.assert_allclose(found.losses, whole.losses[same], rtol=1e-4)
        np.testing.assert_allclose(found.times, whole.times[same], rtol=1e-6)


def test_another_caption_or_clip_has_another_loss() -> None:
    mine = copy.copy(SAMPLER)
    # What starts at zero would hide the caption.
    rng = np.random.default_rng(0)
    generator = jax.tree.map(
        lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape).astype(np.float32),
        mine.models.generator,
    )
    mine.models = dataclasses.replace(mine.models, generator=generator)
    before = example_losses(mine, EXAMPLES[:1])
    for changes in (
        {"prompt": "a small red circle moves left fast"},
        {"video": 255 - EXAMPLES[0].video},
        {"seed": 3},
    ):
        other = dataclasses.replace(EXAMPLES[0], **changes)  # type: ignore[arg-type]
        after = example_losses(mine, [other])
        assert not np.allclose(before.losses, after.losses, rtol=1e-5), changes.keys()
