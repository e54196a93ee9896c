"""What is scored of clips of one size, against the functions that are tested alone."""

import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.eval.codecs import latent_bytes
from sora_jax.eval.examples import Example
from sora_jax.eval.flicker import flicker, motion
from sora_jax.eval.fvd import score_distribution
from sora_jax.eval.reconstruction import psnr, reconstruct
from sora_jax.eval.vae_measures import Describers, Measured, measure, scores_of
from sora_jax.eval.vae_tables import tables
from sora_jax.models.latents import LatentStatistics
from tests.tiny_backbone import TINY
from tests.tiny_models import tiny_networks

STATISTICS = LatentStatistics(jnp.zeros(4), jnp.ones(4))


def examples(count: int, frames: int) -> list[Example]:
    """Noise that moves, each clip by its own number of pixels."""
    still = np.random.default_rng(0).integers(0, 256, (16, 20, 3), np.uint8)
    videos = [
        np.stack([np.roll(still, number * t, axis=1) for t in range(frames)])
        for number in range(count)
    ]
    return [Example(f"clip {n}", video, 8.0, n) for n, video in enumerate(videos)]


def measured(clips: list[Example], describers: Describers) -> Measured:
    return measure(tiny_networks()[1], STATISTICS, clips, describers, shown=2)


def test_the_distribution_is_that_of_reconstructions() -> None:
    clips = examples(8, 5)
    found = measured(clips, Describers(backbone=TINY))
    truths = [clip.video for clip in clips]
    decoded = reconstruct(tiny_networks()[1], truths)
    expected = score_distribution(truths, decoded, TINY)
    assert {name: found.metrics[name] for name in expected} == pytest.approx(expected, rel=1e-4)
    assert found.metrics["psnr_db"] == pytest.approx(np.mean(list(map(psnr, decoded, truths))))
    assert found.metrics["latent_bytes"] == latent_bytes(2 * 4 * 5 * 4)
    titles = [table.title for table in tables({"5x16x20": found.metrics})]
    assert titles == ["5x16x20: 8 clips", "Latents, normalised", "Distribution, by tiny"]


def test_few_clips_and_single_frames_have_no_distribution() -> None:
    for clips in (examples(7, 5), examples(8, 1)):
        found = measured(clips, Describers(backbone=TINY)).metrics
        assert not any(name.startswith("frechet") for name in found)
        assert ("flicker" in found) == (len(clips[0].video) > 1)


def test_one_clip_has_no_way_to_another() -> None:
    found = measured(examples(1, 1), Describers())
    assert "latents/path_ratio" not in found.metrics
    assert found.metrics["clips"] == 1
    assert [list(line.clips) for line in found.exhibits] == [
        ["true", "autoencoder", "bilinear", "JPEG", "AV1"]
    ]


def test_relative_flicker_is_of_all_motion_together() -> None:
    """The first clip stands still, has no share by itself, and is left out."""
    truths = [example.video for example in examples(3, 5)]
    made = [
        np.clip(each.astype(int) + np.arange(5)[:, None, None, None], 0, 255) for each in truths
    ]
    made = [each.astype(np.uint8) for each in made]
    score = scores_of(made, truths)["flicker_relative"]
    flickers, motions = (
        sum(map(f, *a)) for f, a in ((flicker, (made, truths)), (motion, (truths,)))
    )
    assert motion(truths[0]) == 0
    assert score.mean() == pytest.approx((flickers - flicker(made[0], truths[0])) / motions)
