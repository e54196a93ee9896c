"""The loss on captioned clips: one for each, and what it depends on."""

import dataclasses

import jax
import numpy as np
import pytest

from sora_jax.config import ConfigError
from sora_jax.data.buckets import Bucket
from sora_jax.diffusion.times import TimesConfig
from sora_jax.eval.example_losses import example_losses
from sora_jax.eval.examples import world_examples
from sora_jax.sample.generate import Sampler, SamplingConfig
from sora_jax.world.scene import WorldConfig
from tests.tiny_models import tiny_sampler

EXAMPLES = world_examples(
    WorldConfig(max_objects=2), [Bucket(1, 32, 32), Bucket(5, 32, 32)], 8.0, 7, first_seed=7_000
)


def sampler(rows: int) -> Sampler:
    prompts = ("a small red circle moves left fast",)
    return tiny_sampler(prompts, SamplingConfig(steps=2, rows=rows), TimesConfig())


def test_losses_are_of_each_clip_by_size_in_any_batches() -> None:
    whole, pairs = (example_losses(sampler(rows), EXAMPLES) for rows in (8, 2))
    assert {size: len(found.losses) for size, found in whole.items()} == {
        "1x32x32": 4,
        "5x32x32": 3,
    }
    for size, found in whole.items():
        np.testing.assert_array_equal(found.example_id, pairs[size].example_id)
        np.testing.assert_allclose(found.losses, pairs[size].losses, rtol=1e-4)
        assert (found.losses > 0).all()


def test_another_caption_or_clip_has_another_loss() -> None:
    mine = sampler(8)
    # What starts at zero would hide the caption.
    rng = np.random.default_rng(0)
    generator = jax.tree.map(
        lambda leaf: leaf + 0.1 * rng.standard_normal(leaf.shape).astype(np.float32),
        mine.models.generator,
    )
    mine.models = dataclasses.replace(mine.models, generator=generator)
    [before] = example_losses(mine, EXAMPLES[:1]).values()
    for changes in (
        {"prompt": "a small red circle moves left fast"},
        {"video": 255 - EXAMPLES[0].video},
        {"seed": 3},
    ):
        other = dataclasses.replace(EXAMPLES[0], **changes)  # type: ignore[arg-type]
        [after] = example_losses(mine, [other]).values()
        assert not np.allclose(before.losses, after.losses, rtol=1e-5), changes.keys()


def test_clips_that_share_a_seed_are_refused() -> None:
    with pytest.raises(ConfigError, match="a clip are there twice"):
        example_losses(sampler(8), [EXAMPLES[0], EXAMPLES[0]])
