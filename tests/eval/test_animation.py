"""Stillness and colour jumps, on clips whose motion is known."""

import dataclasses

import numpy as np
import pytest

from sora_jax.data.buckets import Bucket
from sora_jax.eval.animation import colour_change, displacement, is_still
from sora_jax.eval.examples import world_examples
from sora_jax.eval.world_state import frozen
from sora_jax.world.render import render
from sora_jax.world.scene import WorldConfig, sample_scene

WORLD = WorldConfig(max_objects=2, motions=("constant",), speeds=("slow",))


def clips() -> list[np.ndarray]:
    sizes = (Bucket(9, 32, 32), Bucket(9, 24, 40))
    return [example.video for example in world_examples(WORLD, sizes, 8.0, 24, 1_000_000)]


@pytest.mark.parametrize("shift", [0.25, 0.5, 1.0])
def test_displacement_is_the_shift_in_pixels(shift: float) -> None:
    """Of a disc, whose edges have all directions; other shapes come within a fifth."""
    for seed in range(6):
        scene = sample_scene(seed, 1.0, WorldConfig(max_objects=1, shapes=("circle",)))
        body = dataclasses.replace(
            scene.bodies[0], position=(0.4, 0.45), velocity=(0.0, shift / 32)
        )
        moved = render(dataclasses.replace(scene, bodies=(body,), gravity=0.0), 2, 32, 32, 1.0)
        video = np.concatenate([moved[:1], moved])  # frames 1 and 2 are a shift apart
        assert displacement(video) == pytest.approx(shift, rel=0.1)


def test_true_clips_move_and_frozen_ones_do_not() -> None:
    assert not any(map(is_still, clips()))
    assert all(is_still(frozen(video)) for video in clips())


def test_grain_is_no_motion() -> None:
    noise = np.random.default_rng(0)
    grainy = [
        np.clip(frozen(video) + noise.normal(0, 4, video.shape), 0, 255).astype(np.uint8)
        for video in clips()
    ]
    assert all(map(is_still, grainy))


def test_a_jump_after_the_given_frame_is_no_motion() -> None:
    video = frozen(clips()[0]) // 2
    video[1:] += 40
    assert displacement(video) == 0
    assert colour_change(video) == pytest.approx(40)


def test_true_clips_keep_their_colour() -> None:
    assert max(map(colour_change, clips())) < 1
    darker = clips()[0].copy()
    darker[1:, ..., 0] //= 2
    assert colour_change(darker) > 3


def test_short_clips_show_no_motion() -> None:
    assert displacement(clips()[0][:2]) == 0
