"""What a caption may say of a scene: the true facts of each object, and sentences made of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from sora_jax.world.scene import SPEED, Body, Colour, Direction, Scene, Shape, Size, Speed, Style

Movement = Literal["rests", "moves", "falls", "thrown", "swings"]
ADVERB: dict[Speed, str] = {"slow": "slowly", "fast": "fast"}


@dataclass(frozen=True)
class ObjectFacts:
    """What is true of one object as the clip begins; of an image, only its looks.

    `rests`: stands still. `moves`: at constant velocity along an axis. `falls`: from rest, so its
    direction is down and it has no speed. `thrown`: launched sideways under gravity, in that
    direction and at that speed. `swings`: to and fro, and first in that direction, at that speed.
    """

    colour: Colour
    shape: Shape
    size: Size
    movement: Movement | None
    direction: Direction | None
    speed: Speed | None


def facts(scene: Scene, is_image: bool) -> tuple[ObjectFacts, ...]:
    """The facts of each body, in the order of the scene's bodies."""
    return tuple(_facts_of(body, scene, is_image) for body in scene.bodies)


def caption(scene: Scene, style: Style, is_image: bool, generator: np.random.Generator) -> str:
    """A true sentence, in lower case without a full stop; the objects stand in random order.

    short: "a red circle and a blue square". dense: "a large red circle moves left fast and a small
    blue square rests". An image's caption tells no motion.
    """
    told = facts(scene, is_image)
    told = tuple(told[index] for index in generator.permutation(len(told)))
    return sentence(told, style, None if is_image else camera_direction(scene))


def sentence(told: Sequence[ObjectFacts], style: Style, pan: Direction | None) -> str:
    """The caption of objects in this order, and of where the camera pans."""
    phrases = [_phrase(each, style) for each in told]
    written = phrases[0]
    if len(phrases) > 1:
        written = ", ".join(phrases[:-1]) + " and " + phrases[-1]
    if style == "dense" and pan is not None:
        written += f", the camera pans {pan}"
    return written


def camera_direction(scene: Scene) -> Direction | None:
    """Where the camera moves, or None where it rests."""
    return direction_of(*scene.camera_velocity) if any(scene.camera_velocity) else None


def direction_of(x: float, y: float) -> Direction:
    """The nearest of the four directions."""
    if abs(x) >= abs(y):
        return "left" if x < 0 else "right"
    return "up" if y < 0 else "down"


def speed_of(speed: float) -> Speed:
    """The nearest of the named speeds, by ratio."""
    return min(SPEED, key=lambda name: abs(math.log(SPEED[name] / speed)))


def _facts_of(body: Body, scene: Scene, is_image: bool) -> ObjectFacts:
    if is_image:
        return ObjectFacts(body.colour, body.shape, body.size, None, None, None)
    if not any(body.velocity):
        if scene.gravity:
            return ObjectFacts(body.colour, body.shape, body.size, "falls", "down", None)
        return ObjectFacts(body.colour, body.shape, body.size, "rests", None, None)
    movement: Movement = "thrown" if scene.gravity else "swings" if scene.period else "moves"
    speed = speed_of(math.hypot(*body.velocity))
    return ObjectFacts(
        body.colour, body.shape, body.size, movement, direction_of(*body.velocity), speed
    )


def _phrase(told: ObjectFacts, style: Style) -> str:
    looks = f"{told.colour} {told.shape}"
    looks = f"an {looks}" if looks[0] in "aeiou" else f"a {looks}"
    if style == "short":
        return looks
    looks = f"a {told.size} {told.colour} {told.shape}"
    if told.movement is None:
        return looks
    if told.movement in ("rests", "falls"):
        return f"{looks} {told.movement}"
    assert told.speed is not None
    verb = "is thrown" if told.movement == "thrown" else told.movement
    return f"{looks} {verb} {told.direction} {ADVERB[told.speed]}"
