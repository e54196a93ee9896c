"""A square moved by given actions leaves marks where it has been: a digital world to act in.

The caption is the string of actions, one word for each `HOLD` frames, and nothing else: where the
square starts is for the first frame to tell. Held-out combinations are turns: training goes right
and goes up, but never up after right.
"""

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, UInt8

from sora_jax.world.canvas import blank, box_cover, lay, pixels
from sora_jax.world.scene import HEADING, PALETTE, Colour
from sora_jax.world.splits import Cell, Split, generator

KEY = 0x9A17
Action = Literal["left", "right", "up", "down"]
ACTIONS: tuple[Action, ...] = get_args(Action)
HOLD = 4
"""Frames for which an action moves the square."""
STEP = 1 / 32
"""World units between frames."""
SIDE = 1 / 8
SQUARE: Colour = "red"
MARK: Colour = "yellow"
EDGE = 0.02
"""Least distance of the square from the edges of the frame."""
HELD_OUT_TURNS: tuple[tuple[Action, Action], ...] = (("right", "up"), ("left", "down"))


@dataclass(frozen=True)
class Painter:
    """All that determines a clip but its pixel size: the centre of the square in the first frame,
    its actions, step and side. Marks fade after `fade` frames; never if it is None."""

    start: tuple[float, float]
    actions: tuple[Action, ...]
    step: float
    side: float
    frames: int
    fps: float
    fade: int | None = None


def sample(seed: int, frames: int, fps: float, split: Split, cell: Cell) -> Painter:
    """Actions that keep the square inside the frame, from a start on a grid of steps."""
    rng = generator(KEY, seed)
    step, side = STEP * cell.speed, SIDE * cell.size
    low = math.ceil((side / 2 + EDGE) / STEP)
    high = round(1 / STEP) - low
    x, y = (rng.integers(low, high + 1, size=2) * STEP).tolist()
    idle = Painter((x, y), (), step, side, frames, fps)
    return replace(idle, actions=sample_actions(idle, split, rng))


def sample_actions(painter: Painter, split: Split, rng: np.random.Generator) -> tuple[Action, ...]:
    """Actions for this painter, each drawn evenly from those that stay inside the frame and, in
    training, make no held-out turn. A held-out string makes one at least."""
    while True:
        actions: list[Action] = []
        place = np.array(painter.start)
        for _ in range(math.ceil((painter.frames - 1) / HOLD)):
            open_ways = [
                action
                for action in ACTIONS
                if _stays_inside(painter, place + _way(painter, action))
                and not (split == "train" and (*actions[-1:], action) in HELD_OUT_TURNS)
            ]
            actions.append(open_ways[rng.integers(len(open_ways))])
            place = place + _way(painter, actions[-1])
        if split == "train" or set(HELD_OUT_TURNS) & set(pairwise(actions)):
            return tuple(actions)


def _way(painter: Painter, action: Action) -> np.ndarray:
    return HOLD * painter.step * np.array(HEADING[action])


def _stays_inside(painter: Painter, place: np.ndarray) -> bool:
    gap = painter.side / 2 + EDGE
    return bool(place.min() >= gap and place.max() <= 1 - gap)


def counterfactual(painter: Painter, seed: int, split: Split) -> Painter:
    """The same start under actions of which half or more differ: what else could have been done."""
    rng = generator(KEY + 1, seed)
    while True:
        actions = sample_actions(painter, split, rng)
        differing = sum(map(str.__ne__, actions, painter.actions))
        if 2 * differing >= len(actions):
            return replace(painter, actions=actions)


def moves(painter: Painter) -> Float[np.ndarray, "t-1 2"]:
    """The way of the square from each frame to the next."""
    held = np.repeat([HEADING[action] for action in painter.actions], HOLD, axis=0)
    return painter.step * held[: painter.frames - 1]


def path(painter: Painter) -> Float[np.ndarray, "t 2"]:
    """The centre of the square in each frame."""
    return np.concatenate([[painter.start], painter.start + np.cumsum(moves(painter), 0)])


def square_cover(
    places: Float[np.ndarray, "t 2"], side: float, size: int
) -> Float[np.ndarray, "t h w"]:
    """How much of each pixel the square covers at each of the places."""
    return box_cover(places - side / 2, places + side / 2, size)


def render(truth: Painter, size: int) -> UInt8[np.ndarray, "t h w 3"]:
    """The clip in size x size pixels."""
    canvas = blank(truth.frames, size)
    square = square_cover(path(truth), truth.side, size)
    marks = np.zeros_like(square)
    for age in range(1, truth.frames if truth.fade is None else min(truth.fade + 1, truth.frames)):
        np.maximum(marks[age:], square[:-age], out=marks[age:])
    lay(canvas, marks, PALETTE[MARK])
    lay(canvas, square, PALETTE[SQUARE])
    return pixels(canvas)


def caption(truth: Painter) -> str:
    """ "right right up left": the actions."""
    return " ".join(truth.actions)
