"""Captions are regular, short and true."""

import dataclasses
import re

import numpy as np
import pytest

from sora_jax.world.caption import caption, facts
from sora_jax.world.scene import Scene, WorldConfig, make_body, sample_scene

CONFIG = WorldConfig(
    motions=("still", "constant", "gravity"), camera_pan=0.3, free_time=0.75, swing=0.3
)
PHRASE = re.compile(
    r"a (?P<size>small|medium|large) (?P<colour>\w+) (?P<shape>\w+)"
    r"( (?P<movement>rests|falls|moves|swings|is thrown)"
    r"( (?P<direction>left|right|up|down) (?P<speed>slowly|fast))?)?"
)


def say(scene: Scene, style: str = "dense", is_image: bool = False) -> str:
    return caption(scene, style, is_image, np.random.default_rng(scene.seed))


def told(sentence: str) -> set[tuple[str | None, ...]]:
    """The facts that a dense caption tells, by a reader that knows the grammar alone."""
    sentence = sentence.split(", the camera pans ")[0]
    matches = [PHRASE.fullmatch(part) for part in re.split(", | and ", sentence)]
    assert all(matches), sentence
    names = ("size", "colour", "shape", "movement", "direction", "speed")
    return {match.group(*names) for match in matches if match}


@pytest.mark.parametrize("is_image", [False, True])
def test_a_dense_caption_tells_the_facts_and_no_others(is_image: bool) -> None:
    for seed in range(200):
        scene = sample_scene(seed, 1.0, CONFIG)
        expected = set()
        for fact in facts(scene, is_image):
            movement = "is thrown" if fact.movement == "thrown" else fact.movement
            direction = fact.direction if fact.speed else None
            speed = {"slow": "slowly", "fast": "fast", None: None}[fact.speed]
            expected.add((fact.size, fact.colour, fact.shape, movement, direction, speed))
        assert told(say(scene, is_image=is_image)) == expected


def test_facts_follow_from_the_state() -> None:
    looks = ("star", "cyan", "large", (0.5, 0.4))
    still, left = make_body(*looks, (0.0, 0.0)), make_body(*looks, (-0.25, 0.0))
    calm = Scene((still, left), 0.0, (1.0, 1.0), 0, 0.0, (0.0, 0.3), 0)
    heavy = Scene((still, left), 1.2, (1.0, 1.0), 0, 0.0, (0.0, 0.0), 0)
    swung = dataclasses.replace(calm, period=1.5)
    scenes = (calm, heavy, swung)
    motion = [[(f.movement, f.direction, f.speed) for f in facts(s, False)] for s in scenes]
    assert motion[0] == [("rests", None, None), ("moves", "left", "slow")]
    assert motion[1] == [("falls", "down", None), ("thrown", "left", "slow")]
    assert motion[2] == [("rests", None, None), ("swings", "left", "slow")]
    assert "a large cyan star swings left slowly" in say(swung)
    assert all(f.movement is f.direction is f.speed is None for f in facts(heavy, True))
    assert say(calm).endswith(", the camera pans down")
    assert "camera" not in say(heavy) + say(calm, is_image=True) + say(calm, style="short")


def test_short_captions_tell_colour_and_shape() -> None:
    bodies = (
        make_body("circle", "orange", "small", (0.3, 0.3), (0.0, 0.5)),
        make_body("square", "blue", "large", (0.6, 0.6), (0.0, 0.0)),
    )
    scene = Scene(bodies, 0.0, (1.0, 1.0), 0, 0.0, (0.0, 0.0), 0)
    orders = {caption(scene, "short", False, np.random.default_rng(seed)) for seed in range(20)}
    assert orders == {
        "an orange circle and a blue square",
        "a blue square and an orange circle",
    }


def test_captions_are_short_and_of_few_words() -> None:
    words: set[str] = set()
    for seed in range(400):
        scene = sample_scene(seed, 1.0, CONFIG)
        sentence = say(scene)
        words |= set(sentence.replace(",", "").split())
        if len(scene.bodies) <= 2:
            assert len(sentence.split()) <= 24
    assert len(words) <= 40
