"""Prompts are read strictly; completed, they keep every fact and are captions of the world."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sora_jax.world.caption import ObjectFacts, camera_direction, caption, facts
from sora_jax.world.completion import complete
from sora_jax.world.prompts import Described, Prompt, UnreadError, lost_fact, read_prompt
from sora_jax.world.scene import WorldConfig, sample_scene
from tests.world.test_caption import told

CONFIG = WorldConfig(
    motions=("still", "constant", "gravity"), camera_pan=0.3, free_time=0.75, swing=0.3
)
SEEDS = st.integers(0, 2**31 - 1)


def described(fact: ObjectFacts) -> Described:
    looks = (fact.size, fact.colour, fact.shape)
    return Described(1, *looks, fact.movement, fact.direction, fact.speed)


@settings(max_examples=200, deadline=None)
@given(SEEDS, SEEDS, st.booleans())
def test_a_completed_short_caption_keeps_every_fact(seed: int, draw: int, is_image: bool) -> None:
    scene = sample_scene(seed, 1.0, CONFIG)
    short = caption(scene, "short", is_image, np.random.default_rng(seed))
    text = complete(short, draw, is_image, CONFIG)
    looks = {(colour, shape) for _, colour, shape, *_ in told(text)}
    assert looks == {(body.colour, body.shape) for body in scene.bodies}
    assert all((movement is None) == is_image for _, _, _, movement, *_ in told(text))
    assert lost_fact(read_prompt(short), read_prompt(text)) is None
    assert text == complete(short, draw, is_image, CONFIG)
    assert text == complete(text, draw + 1, is_image, CONFIG)  # it leaves nothing open


@settings(max_examples=200, deadline=None)
@given(SEEDS, st.booleans())
def test_captions_are_read_as_the_facts_they_tell(seed: int, is_image: bool) -> None:
    scene = sample_scene(seed, 1.0, CONFIG)
    read = read_prompt(caption(scene, "dense", is_image, np.random.default_rng(seed)))
    assert set(read.objects) == {described(fact) for fact in facts(scene, is_image)}
    assert read.pan == (None if is_image else camera_direction(scene))


@settings(max_examples=200, deadline=None)
@given(SEEDS, st.integers(0, 3), st.sampled_from(["size", "colour", "shape", "movement"]))
def test_one_changed_fact_is_a_lost_one(seed: int, place: int, kind: str) -> None:
    scene = sample_scene(seed, 1.0, CONFIG)
    asked = read_prompt(caption(scene, "dense", False, np.random.default_rng(seed)))
    place %= len(asked.objects)
    other = {"size": "small", "colour": "red", "shape": "star", "movement": "rests"}[kind]
    changed = dataclasses.replace(asked.objects[place], **{kind: other})
    objects = tuple(changed if i == place else each for i, each in enumerate(asked.objects))
    is_same = changed == asked.objects[place]
    assert (lost_fact(asked, Prompt(objects, asked.pan)) is None) == is_same
    assert lost_fact(asked, Prompt(asked.objects[1:], asked.pan)) is not None
    assert lost_fact(asked, Prompt((*asked.objects, Described()), asked.pan)) is not None


WORDS = re.findall(
    r"\S+",
    "a two 3 some small big red blue white circle stars object cross moves move falls resting "
    "still thrown swinging left up slow quickly are , and while with",
)


@settings(max_examples=1000, deadline=None)
@given(st.lists(st.sampled_from(WORDS), min_size=1, max_size=7), SEEDS, st.booleans())
def test_whatever_is_read_is_kept_and_completed(words: list[str], seed: int, image: bool) -> None:
    prompt = " ".join(words)
    try:
        text = complete(prompt, seed, image, CONFIG)
    except UnreadError:
        return
    assert told(text)  # in the grammar
    assert lost_fact(read_prompt(prompt), read_prompt(text)) is None
    assert complete(text, seed + 1, image, CONFIG) == text


@pytest.mark.parametrize(
    ("prompt", "objects"),
    [
        (
            "A big red circle, moving to the right.",
            [Described(1, "large", "red", "circle", "moves", "right")],
        ),
        ("two crosses fall", [Described(2, shape="cross", movement="falls", direction="down")]),
        ("some slow objects", [Described(0, speed="slow")]),
        (
            "a star is thrown left quickly",
            [Described(1, None, None, "star", "thrown", "left", "fast")],
        ),
        (
            "a star and a circle swing up",
            [
                Described(shape="star", movement="swings", direction="up"),
                Described(shape="circle", movement="swings", direction="up"),
            ],
        ),
        (
            "a star, a red circle rests and 3 squares move downwards",
            [
                Described(shape="star", movement="moves", direction="down"),
                Described(colour="red", shape="circle", movement="rests"),
                Described(3, shape="square", movement="moves", direction="down"),
            ],
        ),
    ],
)
def test_freer_words_are_read(prompt: str, objects: list[Described]) -> None:
    assert read_prompt(prompt) == Prompt(tuple(objects), None)
    text = complete(prompt, 0, False, CONFIG)
    assert lost_fact(read_prompt(prompt), read_prompt(text)) is None


@pytest.mark.parametrize(
    ("prompt", "sentence"),
    [
        ("a dog and a red circle", "no 'dog'"),
        ("a red circle on the left", "no 'on'"),
        ("the left circle", "'left' is no motion here"),
        ("a red blue circle", "'blue' is the second colour of one object"),
        ("a circle moves left and right", "'right' is the second direction"),
        ("the camera pans up", "it names no shape"),
        ("a star, the camera pans up, the camera pans left", "pans up and left"),
        ("red", "'red' names no shape"),
        ("", "'' names no shape"),
        ("a circle falls and a square rests", "no scene of the world shows these motions together"),
        ("a circle swings up and a star moves up", "no scene of the world shows these motions"),
        ("a circle is thrown up", "no scene of the world shows these motions together"),
        ("eight circles and a star", "there are no 9 colours"),
    ],
)
def test_what_the_world_cannot_say_is_named(prompt: str, sentence: str) -> None:
    with pytest.raises(UnreadError, match=sentence):
        complete(prompt, 0, False, CONFIG)


def test_what_is_open_comes_from_what_the_config_draws() -> None:
    config = WorldConfig(
        colours=("red", "white"), max_objects=2, shapes=("star",), sizes=("small",),
        motions=("constant",), speeds=("slow",), directions=("up", "left"),
    )  # fmt: skip
    texts = [complete("two objects", seed, False, config) for seed in range(40)]
    words = set(" ".join(texts).split())
    looks, motion = {"small", "red", "white", "star"}, {"moves", "up", "left", "slowly"}
    assert words == {"a", "and"} | looks | motion
    assert len(set(texts)) == 8
    assert complete("two red circles rest", 0, False, config) == (
        "a small red circle rests and a small red circle rests"
    )
    assert {complete("stars", seed, True, config).count("star") for seed in range(9)} == {2}
    swinging = dataclasses.replace(config, free_time=0.75, swing=0.25)
    texts = [complete("two objects", seed, False, swinging) for seed in range(200)]
    swings = sum("swings" in text for text in texts)
    assert swings == sum("moves" not in text for text in texts)
    assert abs(swings / 200 - 0.25) < 0.09  # 3 standard errors
    text = complete("three objects", 0, False, config)
    assert len({colour for _, colour, *_ in told(text)}) == 3  # beyond the config where it must
