"""Exact motion of a scene: closed-form flight between elastic contacts, from one contact to the
next.

No time step: between contacts each body flies on x + v t + g t^2 / 2; the time of the next contact
is a root of a quadratic, taken in the form that does not cancel (Numerical Recipes, section 5.6).
"""

import math
from itertools import combinations
from typing import Literal

import numpy as np

from sora_jax.world.scene import Scene, States

MAX_EVENTS = 100_000

Contact = tuple[Literal["low", "high", "pair"], int, int]
"""A contact of body i: with the lower or upper wall of axis j, or with body j."""


def simulate(scene: Scene, times: np.ndarray) -> States:
    """The state at each of the times [f], in seconds from 0 and in any order.

    The state at a time does not depend on which other times are asked for. Bodies that swing go to
    and fro on the way of their first period / pi seconds, as a pendulum does: at their own velocity
    in the middle. Raises ValueError for a negative time, and for a scene with more than
    `MAX_EVENTS` contacts.
    """
    times = np.asarray(times, np.float64)
    if times.size and times.min() < 0:
        raise ValueError(
            f"simulate: time {times.min()} s lies before the scene begins: ask for times from 0"
        )
    if not scene.period:
        return _go_on(scene, times)
    turn = scene.period / (2 * math.pi)
    straight = _go_on(scene, turn * (1 + np.sin(times / turn)))
    return States(straight.positions, straight.velocities * np.cos(times / turn)[:, None, None])


def _go_on(scene: Scene, times: np.ndarray) -> States:
    """The states of bodies that turn round at contacts alone."""
    flights = _flights(scene, float(times.max(initial=0.0)))
    starts = np.array([start for start, _, _ in flights])
    index = np.searchsorted(starts, times, side="right") - 1
    elapsed = (times - starts[index])[:, None, None]
    position = np.stack([position for _, position, _ in flights])[index]
    velocity = np.stack([velocity for _, _, velocity in flights])[index]
    pull = np.array([0.0, scene.gravity])
    return States(
        position + velocity * elapsed + 0.5 * pull * elapsed**2, velocity + pull * elapsed
    )


def _flights(scene: Scene, end: float) -> list[tuple[float, np.ndarray, np.ndarray]]:
    """(start time, positions [k, 2], velocities [k, 2]) of each stretch of free flight that starts
    before `end`."""
    position = np.array([body.position for body in scene.bodies]).reshape(-1, 2)
    velocity = np.array([body.velocity for body in scene.bodies]).reshape(-1, 2)
    flights = [(0.0, position, velocity)]
    start = 0.0
    for _ in range(MAX_EVENTS):
        wait, contact = _next_contact(scene, position.tolist(), velocity.tolist())
        start += wait
        if contact is None or start > end:
            return flights
        pull = np.array([0.0, scene.gravity])
        position = position + velocity * wait + 0.5 * pull * wait**2
        velocity = velocity + pull * wait
        _bounce(scene, position, velocity, contact)
        flights.append((start, position, velocity))
    raise ValueError(
        f"simulate: scene {scene.seed} has more than {MAX_EVENTS} contacts before {end} s"
    )


def _next_contact(
    scene: Scene, position: list[list[float]], velocity: list[list[float]]
) -> tuple[float, Contact | None]:
    """Seconds until the next contact, and which; (inf, None) where nothing ever touches."""
    best: tuple[float, Contact | None] = (math.inf, None)
    for i, body in enumerate(scene.bodies):
        for axis in range(2):
            pull = scene.gravity if axis == 1 else 0.0
            speed = velocity[i][axis]
            wait = _time_to_rise(position[i][axis] - body.radius, speed, pull)
            if wait < best[0]:
                best = (wait, ("low", i, axis))
            wait = _time_to_fall(scene.box[axis] - body.radius - position[i][axis], speed, pull)
            if wait < best[0]:
                best = (wait, ("high", i, axis))
    for i, j in combinations(range(len(scene.bodies)), 2):
        reach = scene.bodies[i].radius + scene.bodies[j].radius
        wait = _time_to_meet(position[i], position[j], velocity[i], velocity[j], reach)
        if wait < best[0]:
            best = (wait, ("pair", i, j))
    return best


def _time_to_rise(gap: float, speed: float, pull: float) -> float:
    """When a body `gap` past the lower wall reaches it, moving at `speed` away from it and pulled
    away from it."""
    discriminant = speed**2 - 2 * pull * gap
    if speed >= 0 or discriminant < 0:
        return math.inf
    return max(0.0, 2 * gap / (math.sqrt(discriminant) - speed))


def _time_to_fall(gap: float, speed: float, pull: float) -> float:
    """When a body `gap` before the upper wall reaches it, moving at `speed` towards it and pulled
    towards it."""
    if pull == 0 and speed <= 0:
        return math.inf
    root = math.sqrt(max(0.0, speed**2 + 2 * pull * gap))
    return max(0.0, 2 * gap / (speed + root)) if speed > 0 else (root - speed) / pull


def _time_to_meet(
    one: list[float],
    other: list[float],
    one_velocity: list[float],
    other_velocity: list[float],
    reach: float,
) -> float:
    """When two centres come within `reach` of each other. Gravity moves both alike and drops
    out."""
    gap = (one[0] - other[0], one[1] - other[1])
    change = (one_velocity[0] - other_velocity[0], one_velocity[1] - other_velocity[1])
    approach = gap[0] * change[0] + gap[1] * change[1]
    excess = gap[0] ** 2 + gap[1] ** 2 - reach**2
    discriminant = approach**2 - (change[0] ** 2 + change[1] ** 2) * excess
    if approach >= 0 or discriminant < 0:
        return math.inf
    return max(0.0, excess / (math.sqrt(discriminant) - approach))


def _bounce(scene: Scene, position: np.ndarray, velocity: np.ndarray, contact: Contact) -> None:
    """Turn the velocities of the bodies in contact, in place; a body at a wall is put exactly onto
    it."""
    kind, i, j = contact
    if kind == "pair":
        one, other = scene.bodies[i], scene.bodies[j]
        normal = position[i] - position[j]
        normal /= math.hypot(*normal)
        impulse = (
            2
            * one.mass
            * other.mass
            / (one.mass + other.mass)
            * ((velocity[i] - velocity[j]) @ normal)
            * normal
        )
        velocity[i] -= impulse / one.mass
        velocity[j] += impulse / other.mass
    else:
        radius = scene.bodies[i].radius
        position[i, j] = radius if kind == "low" else scene.box[j] - radius
        velocity[i, j] = abs(velocity[i, j]) if kind == "low" else -abs(velocity[i, j])
