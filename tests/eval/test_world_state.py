"""Scores of clips against captions: the truth is right, and each kind of wrong counts as wrong."""

import dataclasses

import numpy as np
import pytest

from sora_jax.data.buckets import Bucket
from sora_jax.eval.examples import Example, world_examples
from sora_jax.eval.world_state import (
    frozen,
    read,
    score,
    score_shuffled,
)
from sora_jax.world.scene import WorldConfig

WORLD = WorldConfig(max_objects=3, shapes=("circle", "square", "triangle"), motions=("constant",))
SIZES = tuple(Bucket(9, height, width) for height, width in ((32, 32), (24, 40), (40, 24)))


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return world_examples(WORLD, SIZES, 8.0, 24, first_seed=1_000_000)


def scores_of(examples: list[Example], videos: list[np.ndarray]) -> dict[str, float]:
    found = score(read(videos, 8.0), [example.facts for example in examples])
    return {name: each.mean() for name, each in found.items() if each.weights.any()}


def test_ground_truth_scores_one_in_everything(examples: list[Example]) -> None:
    scores = scores_of(examples, [example.video for example in examples])
    assert set(scores) == {
        *(f"{name}_accuracy" for name in ("colour", "shape", "size", "movement", "direction")),
        "speed_accuracy",
        "count_accuracy",
        "coverage",
    }
    assert min(scores.values()) >= 0.98


def test_images_are_asked_nothing_about_motion() -> None:
    pictures = world_examples(WORLD, [Bucket(1, 32, 32)], 8.0, 12, first_seed=5)
    scores = scores_of(pictures, [picture.video for picture in pictures])
    assert set(scores) == {
        *(f"{name}_accuracy" for name in ("colour", "shape", "size", "count")),
        "coverage",
    }
    assert min(scores.values()) >= 0.98


def test_frozen_clips_lose_motion_and_nothing_else(examples: list[Example]) -> None:
    scores = scores_of(examples, [frozen(example.video) for example in examples])
    for name in ("colour", "shape", "size", "count"):
        assert scores[f"{name}_accuracy"] >= 0.95
    for name in ("direction", "speed", "movement"):
        assert scores[f"{name}_accuracy"] == 0


def test_mirrored_clips_lose_left_and_right_only(examples: list[Example]) -> None:
    scores = scores_of(examples, [example.video[:, :, ::-1] for example in examples])
    facts = [told for example in examples for told in example.facts]
    upright = np.mean([told.direction in ("up", "down") for told in facts])
    assert scores["direction_accuracy"] == pytest.approx(upright, abs=0.03)
    assert scores["shape_accuracy"] >= 0.95


def test_swapped_channels_lose_the_colours_that_change(examples: list[Example]) -> None:
    swapped = [example.video[..., [2, 1, 0]] for example in examples]
    red = [e for e in examples if [told.colour for told in e.facts] == ["red"]]
    assert red
    assert scores_of(examples, swapped)["colour_accuracy"] < 0.7
    assert scores_of(red, [e.video[..., [2, 1, 0]] for e in red])["shape_accuracy"] == 0


def test_noise_and_grey_are_failures_never_averaged_out(examples: list[Example]) -> None:
    noise = [
        np.random.default_rng(n).integers(0, 256, e.video.shape, np.uint8)
        for n, e in enumerate(examples)
    ]
    scores = scores_of(examples, noise)
    assert max(scores[name] for name in scores if name != "coverage") == 0
    assert scores["coverage"] < 0.1
    half = [e.video if n % 2 else noise[n] for n, e in enumerate(examples)]
    truth = scores_of(examples, [e.video for e in examples])
    assert scores_of(examples, half)["count_accuracy"] == pytest.approx(0.5, abs=0.02)
    assert scores_of(examples, half)["colour_accuracy"] < 0.65 * truth["colour_accuracy"]


def test_an_object_too_many_fails_the_count_and_not_the_colours(examples: list[Example]) -> None:
    pairs = [e for e in examples if len(e.facts) == 2]
    fewer = [dataclasses.replace(e, facts=e.facts[:1]) for e in pairs]
    scores = scores_of(fewer, [e.video for e in pairs])
    assert scores["count_accuracy"] == 0
    assert scores["colour_accuracy"] == scores["shape_accuracy"] == 1


def test_shuffled_captions_score_as_the_mean_over_all_derangements(
    examples: list[Example],
) -> None:
    chosen = examples[:4]
    scenes = read([e.video for e in chosen], 8.0)
    facts = [e.facts for e in chosen]
    shifted = [score(scenes, facts[shift:] + facts[:shift]) for shift in (1, 2, 3)]
    for name, found in score_shuffled(scenes, range(4), facts).items():
        asked = sum(each[name].weights for each in shifted)
        right = sum(each[name].weights * each[name].values for each in shifted)
        np.testing.assert_array_equal(found.weights, asked)
        np.testing.assert_allclose(found.values * found.weights, right)


def test_shuffled_captions_lose_what_they_tell_and_nothing_else(examples: list[Example]) -> None:
    scenes, facts = read([e.video for e in examples], 8.0), [e.facts for e in examples]
    shuffled = score_shuffled(scenes, range(len(examples)), facts)
    assert shuffled["colour_accuracy"].mean() < 0.5
    assert shuffled["coverage"].mean() >= 0.95
    part = score_shuffled(scenes[5:9], range(5, 9), facts)
    for name, found in part.items():
        np.testing.assert_array_equal(found.values, shuffled[name].values[5:9])
