"""Scenes of moving shapes: their state, how one is drawn from a seed, and their exact motion.

Lengths are in world units: one unit is sqrt(height * width) pixels, so a scene has no pixel size
of its own. The box is [0, sqrt(width / height)] x [0, sqrt(height / width)], x to the right and y
down. Times are in seconds.

The box travels with the camera. By Galilean invariance its motion changes nothing inside, so every
position and velocity here is as seen in the frame; a camera pan shows in the background alone.
"""

import math
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np

from sora_jax.errors import ConfigError
from sora_jax.fields import LATER

Shape = Literal["circle", "square", "triangle", "diamond", "star", "cross"]
Colour = Literal["red", "green", "blue", "yellow", "magenta", "cyan", "orange", "white"]
Size = Literal["small", "medium", "large"]
Motion = Literal["still", "constant", "gravity"]
Speed = Literal["slow", "fast"]
Direction = Literal["left", "right", "up", "down"]
Style = Literal["short", "dense"]

PALETTE: dict[Colour, tuple[float, float, float]] = {
    "red": (0.95, 0.13, 0.13),
    "green": (0.13, 0.85, 0.18),
    "blue": (0.18, 0.33, 1.00),
    "yellow": (0.98, 0.92, 0.12),
    "magenta": (0.90, 0.18, 0.90),
    "cyan": (0.10, 0.90, 0.90),
    "orange": (1.00, 0.48, 0.08),
    "white": (0.97, 0.97, 0.97),
}
"""RGB in [0, 1]; as seen from the dark background, any two stand at least 20 degrees apart."""

SIZE_RADIUS: dict[Size, float] = {"small": 0.115, "medium": 0.145, "large": 0.18}
"""Radius of the disc of the same area: all shapes of a size have equal areas, so area alone tells
the size."""

EXTENT: dict[Shape, float] = {
    "circle": 1.0,
    "square": math.sqrt(math.pi / 2),
    "triangle": math.sqrt(4 * math.pi / (3 * math.sqrt(3))),
    "diamond": math.sqrt(math.pi / 2),
    "star": math.sqrt(math.pi / (5 * 0.5 * math.sin(math.pi / 5))),
    "cross": math.sqrt(math.pi * (1 + 0.4**2) / (4 * (2 * 0.4 - 0.4**2))),
}
"""Radius of the smallest enclosing disc, over that of the disc of equal area."""

SPEED: dict[Speed, float] = {"slow": 0.25, "fast": 0.5}
"""World units per second."""

HEADING: dict[Direction, tuple[float, float]] = {
    "left": (-1.0, 0.0),
    "right": (1.0, 0.0),
    "up": (0.0, -1.0),
    "down": (0.0, 1.0),
}
GRAVITY = 1.2
"""Downward acceleration of the scenes that have one, in world units per second squared."""

CAMERA_SPEED = 0.3
"""World units per second."""

PERIOD = (1.0, 2.0)
"""Seconds that a swing takes to and fro, least and most."""

MAX_RESTARTS = 2000  # four that fall take 254 in one of some thousands of scenes
MAX_TRIES = 80


@dataclass(frozen=True)
class WorldConfig:
    """Which scenes may be drawn.

    `texture` is the peak contrast of the background, in units of full brightness. `camera_pan` is
    the probability that the camera moves, and `swing` that all that moves swings to and fro, in a
    scene without gravity. Nothing touches a wall or another body before `free_time` seconds.
    `styles` are those of the captions.
    """

    min_objects: int = 1
    max_objects: int = 4
    shapes: tuple[Shape, ...] = get_args(Shape)
    colours: tuple[Colour, ...] = get_args(Colour)
    sizes: tuple[Size, ...] = get_args(Size)
    motions: tuple[Motion, ...] = ("constant", "gravity")
    speeds: tuple[Speed, ...] = get_args(Speed)
    directions: tuple[Direction, ...] = get_args(Direction)
    texture: float = 0.06
    camera_pan: float = 0.0
    free_time: float = 0.5
    styles: tuple[Style, ...] = get_args(Style)
    swing: float = field(default=0.0, metadata=LATER)

    def __post_init__(self) -> None:
        choices = {
            "shapes": (self.shapes, Shape),
            "colours": (self.colours, Colour),
            "sizes": (self.sizes, Size),
            "motions": (self.motions, Motion),
            "speeds": (self.speeds, Speed),
            "directions": (self.directions, Direction),
            "styles": (self.styles, Style),
        }
        for name, (chosen, kind) in choices.items():
            known = get_args(kind)
            if not chosen or len(set(chosen)) != len(chosen) or not set(chosen) <= set(known):
                raise ConfigError(
                    f"world.{name} is {chosen!r}: give one or more of {known}, each once"
                )
        if not 1 <= self.min_objects <= self.max_objects <= len(self.colours):
            raise ConfigError(
                f"world.min_objects is {self.min_objects} and world.max_objects"
                f" {self.max_objects}: they must be in order, from 1 to the number of colours"
                f" ({len(self.colours)}), for each object has a colour of its own"
            )
        if not 0 <= self.texture <= 0.08:
            raise ConfigError(
                f"world.texture is {self.texture}: above 0.08 the background is no longer dark"
            )
        if not 0 <= self.camera_pan <= 1:
            raise ConfigError(
                f"world.camera_pan is {self.camera_pan}: it is a probability, from 0 to 1"
            )
        if self.free_time < 0:
            raise ConfigError(f"world.free_time is {self.free_time}: seconds cannot be negative")
        if not 0 <= self.swing <= 1:
            raise ConfigError(f"world.swing is {self.swing}: it is a probability, from 0 to 1")
        if self.swing and self.free_time < PERIOD[1] / math.pi:
            raise ConfigError(
                f"world.free_time is {self.free_time}: where bodies swing it must be at least"
                f" {PERIOD[1] / math.pi:.2f} s, the time from one end of the longest swing to the"
                " other at full speed"
            )


@dataclass(frozen=True)
class Body:
    """One shape at time 0. `radius` is that of its enclosing disc, which is what collides; `mass`
    goes as its area."""

    shape: Shape
    colour: Colour
    size: Size
    radius: float
    mass: float
    position: tuple[float, float]
    velocity: tuple[float, float]


@dataclass(frozen=True)
class Scene:
    """All that determines a clip but its pixel size, duration and frame rate.

    `period`: seconds in which all bodies swing to and fro once, 0 where they go on. A clip then
    begins in the middle of the swing, with the bodies' velocities; their positions are where it
    turns round."""

    bodies: tuple[Body, ...]
    gravity: float
    box: tuple[float, float]
    background_seed: int
    texture: float
    camera_velocity: tuple[float, float]
    seed: int
    period: float = 0.0


@dataclass(frozen=True)
class States:
    """Positions and velocities, float64 [f, k, 2], of k bodies at f times."""

    positions: np.ndarray = field(repr=False)
    velocities: np.ndarray = field(repr=False)


def make_body(
    shape: Shape,
    colour: Colour,
    size: Size,
    position: tuple[float, float],
    velocity: tuple[float, float],
) -> Body:
    """A body whose radius and mass follow from its shape and size."""
    equal_area = SIZE_RADIUS[size]
    return Body(shape, colour, size, EXTENT[shape] * equal_area, equal_area**2, position, velocity)


def sample_scene(seed: int, aspect: float, config: WorldConfig) -> Scene:
    """The scene of this seed, in a box of this aspect ratio (width / height).

    The seed is hashed, so scenes of neighbouring seeds are independent. Bodies are placed one
    after the other; one that would touch a wall or another before `free_time` is drawn anew, looks
    and all, and too crowded a scene starts over.

    Raises ConfigError where the bodies do not fit into the box.
    """
    generator = np.random.default_rng(np.random.SeedSequence((0x5CE4E, seed)))
    box = (math.sqrt(aspect), 1 / math.sqrt(aspect))
    count = int(generator.integers(config.min_objects, config.max_objects + 1))
    background_seed = int(generator.integers(2**31))
    camera_velocity = (0.0, 0.0)
    if generator.random() < config.camera_pan:
        heading = HEADING[list(HEADING)[generator.integers(len(HEADING))]]
        camera_velocity = (CAMERA_SPEED * heading[0], CAMERA_SPEED * heading[1])
    scene_motion = config.motions[generator.integers(len(config.motions))]
    gravity = GRAVITY if scene_motion == "gravity" else 0.0
    colours = generator.permutation(len(config.colours))[:count]
    for _ in range(MAX_RESTARTS):
        bodies: list[Body] = []
        for uniforms in generator.random((MAX_TRIES, 7)).tolist():
            body = _draw_body(uniforms, config.colours[colours[len(bodies)]], gravity, box, config)
            if body is not None and all(
                _stay_apart(body, other, config.free_time) for other in bodies
            ):
                bodies.append(body)
            if len(bodies) == count:
                return Scene(
                    tuple(bodies),
                    gravity,
                    box,
                    background_seed,
                    config.texture,
                    camera_velocity,
                    seed,
                    0.0 if gravity else _draw_period(seed, config.swing),
                )
    raise ConfigError(
        f"world: {count} objects found no place in a box of {box[0]:.2f} x {box[1]:.2f} where they"
        f" stay free of contact for {config.free_time} s (seed {seed}): lower world.max_objects or"
        " world.free_time"
    )


def _draw_period(seed: int, swing: float) -> float:
    """From a stream of its own: scenes are otherwise the same whether any of them swing."""
    generator = np.random.default_rng(np.random.SeedSequence((0x5319, seed)))
    swings, period = generator.random() < swing, generator.uniform(*PERIOD)
    return float(period) if swings else 0.0


def _draw_body(
    uniforms: list[float],
    colour: Colour,
    gravity: float,
    box: tuple[float, float],
    config: WorldConfig,
) -> Body | None:
    """A body from 7 uniform numbers, or None where it cannot stay off the walls for the free
    time."""
    shape = config.shapes[int(uniforms[0] * len(config.shapes))]
    size = config.sizes[int(uniforms[1] * len(config.sizes))]
    velocity = _draw_velocity(uniforms[2], uniforms[3], uniforms[4], gravity, config)
    radius = EXTENT[shape] * SIZE_RADIUS[size]
    position = []
    for axis, uniform in enumerate(uniforms[5:]):
        # Velocities along y are never against gravity, so the farthest points of the free flight
        # are its ends.
        travel = velocity[axis] * config.free_time + 0.5 * axis * gravity * config.free_time**2
        low = radius - min(travel, 0.0)
        high = box[axis] - radius - max(travel, 0.0)
        if low >= high:
            return None
        position.append(low + uniform * (high - low))
    return make_body(shape, colour, size, (position[0], position[1]), velocity)


def _draw_velocity(
    first: float, second: float, third: float, gravity: float, config: WorldConfig
) -> tuple[float, float]:
    """One of the allowed velocities from three uniform numbers."""
    speed = SPEED[config.speeds[int(first * len(config.speeds))]]
    if gravity:
        side = (0.0, -speed, speed)[int(second * 3)]
        return (side, 0.0)
    calm = [motion for motion in config.motions if motion != "gravity"]
    if calm[int(third * len(calm))] == "still":
        return (0.0, 0.0)
    heading = HEADING[config.directions[int(second * len(config.directions))]]
    return (speed * heading[0], speed * heading[1])


def _stay_apart(one: Body, other: Body, free_time: float) -> bool:
    """Whether two bodies do not touch before the free time. Gravity is common to both and drops
    out."""
    gap = (one.position[0] - other.position[0], one.position[1] - other.position[1])
    change = (one.velocity[0] - other.velocity[0], one.velocity[1] - other.velocity[1])
    rate = change[0] ** 2 + change[1] ** 2
    closest = -(gap[0] * change[0] + gap[1] * change[1]) / rate if rate else 0.0
    time = min(max(closest, 0.0), free_time)
    distance = math.hypot(gap[0] + time * change[0], gap[1] + time * change[1])
    return distance > one.radius + other.radius
