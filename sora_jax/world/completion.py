"""Prompts completed to captions: what a prompt leaves open is drawn as scenes are, from a seed."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import TypeVar, get_args

import numpy as np

from sora_jax.world.caption import Movement, ObjectFacts, sentence
from sora_jax.world.prompts import Described, UnreadError, read_prompt
from sora_jax.world.scene import Colour, Direction, Motion, WorldConfig

Choice = TypeVar("Choice")
EVERYTHING = WorldConfig(motions=get_args(Motion), free_time=0.75, swing=0.5)


def complete(text: str, seed: int, is_image: bool, config: WorldConfig) -> str:
    """A dense caption that says all that a prompt says, and of each object all that such captions
    say. A pure function of its arguments.

    What is open comes from what `config` draws, as far as that agrees with what is said: each
    object has a colour of its own, and all move under gravity or none does. An image's caption
    tells of motion only where the prompt does.

    Raises:
        UnreadError: the prompt says what captions of the world do not, or what no scene shows.
    """
    prompt = read_prompt(text)
    words = " ".join(text.lower().split()).encode()
    key = int.from_bytes(hashlib.sha256(words).digest()[:8], "big")
    generator = np.random.default_rng(np.random.SeedSequence((0xE8BA4D, key, seed)))
    several = range(2, max(2, config.max_objects) + 1)
    objects = [
        replace(each, count=1)
        for each in prompt.objects
        for _ in range(each.count or _draw(several, generator))
    ]
    colours = _colours(objects, generator, config)
    motions = _motions(objects, generator, is_image, config)
    told = []
    for each, colour, motion in zip(objects, colours, motions, strict=True):
        shape, size = _draw(config.shapes, generator), _draw(config.sizes, generator)
        looks = (colour, each.shape or shape, each.size or size)
        told.append(ObjectFacts(*looks, motion.movement, motion.direction, motion.speed))
    return sentence(told, "dense", prompt.pan)


def _draw(choices: Sequence[Choice], generator: np.random.Generator) -> Choice:
    return choices[int(generator.integers(len(choices)))]


def _colours(
    objects: Sequence[Described], generator: np.random.Generator, config: WorldConfig
) -> list[Colour]:
    """Of each object: as told, or one that no other has."""
    told = {each.colour for each in objects}
    others = dict.fromkeys((*config.colours, *get_args(Colour)))  # those of the config come first
    free = [colour for colour in others if colour not in told]
    first = sum(colour in config.colours for colour in free)
    order = [*generator.permutation(first), *range(first, len(free))]
    missing = sum(each.colour is None for each in objects)
    if missing > len(free):
        raise UnreadError(f"there are no {len(objects)} colours for as many objects")
    drawn: Iterator[Colour] = iter([free[index] for index in order])
    return [next(drawn) if each.colour is None else each.colour for each in objects]


def _motions(
    objects: Sequence[Described],
    generator: np.random.Generator,
    is_image: bool,
    config: WorldConfig,
) -> list[Described]:
    """Of each object: its motion, complete; of an image's, only where any is told."""
    asked = [replace(each, size=None, colour=None, shape=None) for each in objects]

    def fitting(motions: Sequence[Described]) -> list[list[Described]]:
        return [
            [Described()]
            if is_image and each == Described()
            else [motion for motion in motions if each.agrees(motion)]
            for each in asked
        ]

    for allowed in (config, EVERYTHING):
        going_on = (_without_gravity(allowed, "moves"), _under_gravity(allowed))
        scenes = [each for each in map(fitting, going_on) if all(each)]
        if allowed.swing:
            swinging = fitting(_without_gravity(allowed, "swings"))
            if all(swinging) and (not scenes or generator.random() < allowed.swing):
                scenes = [swinging]
        if scenes:
            return [_draw(each, generator) for each in _draw(scenes, generator)]
    raise UnreadError("no scene of the world shows these motions together")


def _without_gravity(config: WorldConfig, verb: Movement) -> list[Described]:
    motions = [Described(movement="rests")] if "still" in config.motions else []
    if "constant" in config.motions:
        motions += [
            Described(movement=verb, direction=direction, speed=speed)
            for direction, speed in product(config.directions, config.speeds)
        ]
    return motions


def _under_gravity(config: WorldConfig) -> list[Described]:
    if "gravity" not in config.motions:
        return []
    sideways: tuple[Direction, Direction] = ("left", "right")
    return [Described(movement="falls", direction="down")] + [
        Described(movement="thrown", direction=direction, speed=speed)
        for direction, speed in product(sideways, config.speeds)
    ]
