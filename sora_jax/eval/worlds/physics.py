"""Whether bouncing discs obey mechanics: gravity, energy, momentum, restitution, and their count.

Accelerations and velocities are of parabolas through five frames of free flight, found in the
decoded tracks themselves: between two frames nothing touches if the gaps on both sides are wider
together than a step. Lengths are in world units and times in seconds. A metric is asked of a clip
only if the true tracks, measured in the same way, show an occasion for it with room to spare.
"""

import math
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, UInt8
from numpy.lib.stride_tricks import sliding_window_view

from sora_jax.eval.worlds.measure import Measure, Measures, median, moved, share
from sora_jax.world.bounce import Bounce, size_of, states
from sora_jax.world.caption import direction_of, speed_of
from sora_jax.world.unmix import COLOURS, Blobs, find

WINDOW = 5
CURVE = np.array([2.0, -1.0, -2.0, -1.0, 2.0]) / 7  # of a parabola through a window, per frame^2
SLOPE = np.array([-2.0, -1.0, 0.0, 1.0, 2.0]) / 10
LEAST_WINDOWS = 3
STEP_MARGIN = 1.2
ERROR, ROOM = 0.2, 0.5
"""Pixels by which gaps are misread at most, and that true ones must have to spare."""
HEAD_ON = 0.9
"""Largest offset of the lines of flight of an impact, over the sum of the radii: of a graze, the
direction of the impulse is not to be told."""
BRISK = 1.5
"""Least approach of an impact in a step, over the margin of the gaps."""
WORST_ENERGY = 0.1
"""Variation of the energy, over its mean, at which its score is 0: that of half the gravity."""
WORST_MOMENTUM = 0.5


@dataclass(frozen=True, eq=False)
class Tracks:
    """Places of the discs in each frame, and in which of them they were found."""

    truth: Bounce
    places: Float[np.ndarray, "t n 2"]
    found: Bool[np.ndarray, "t n"]
    margin: float
    """World units by which gaps must be open to be free."""

    @property
    def dt(self) -> float:
        return 1 / self.truth.fps

    @property
    def radii(self) -> np.ndarray:
        return np.array([body.radius for body in self.truth.scene.bodies])

    @property
    def masses(self) -> np.ndarray:
        return np.array([body.mass for body in self.truth.scene.bodies])

    @property
    def gaps(self) -> Float[np.ndarray, "2 t n 2"]:
        """To the lower and to the upper wall of each axis."""
        radii = self.radii[:, None]
        return np.stack([self.places - radii, 1 - radii - self.places])


def measure(video: UInt8[np.ndarray, "t h w 3"], truth: Bounce) -> Measures:
    """The metrics of a clip that should show this truth."""
    blobs = find(video)
    own = [COLOURS.index(body.colour) for body in truth.scene.bodies]
    areas = np.array([math.pi * body.radius**2 for body in truth.scene.bodies])
    found = _of(blobs, own).present(areas)
    pixel = 1 / video.shape[1]
    seen = Tracks(truth, blobs.centroid[:, own], found, ERROR * pixel)
    ideal = Tracks(truth, states(truth).positions, np.ones_like(found), ROOM * pixel)
    others = np.delete(blobs.area, own, axis=1).max(1) > 0.5 * areas.min()
    motion = moved(seen.places, found, ideal.places, ideal.found)
    gate = motion.score
    velocity_error, typical = _velocity_error(seen, ideal)
    measures = {
        "moved": motion,
        "count_kept": Measure(share(found.all(1) & ~others), 1.0, 0.0, gate),
        "velocity_error": Measure(velocity_error, 0.0, typical),
        "caption_facts": Measure(_facts_right(seen, _of(blobs, own)), 1.0, 0.0, gate),
    }
    values, asked = _mechanics(seen), _mechanics(ideal)
    pull = truth.scene.gravity
    gravity = Measure(values["gravity"], pull, 0.0, gate)
    laws = {
        "gravity": gravity,
        # What floats keeps its acceleration and its energy for nothing.
        "gravity_spread": Measure(values["gravity_spread"], 0.0, pull, gravity.score),
        "energy_variation": Measure(values["energy_variation"], 0.0, WORST_ENERGY, gravity.score),
        "restitution": Measure(values["restitution"], 1.0, 0.0, gate),
        "momentum_error": Measure(values["momentum_error"], 0.0, WORST_MOMENTUM, gate),
    }
    return measures | {name: law for name, law in laws.items() if math.isfinite(asked[name])}


def _of(blobs: Blobs, own: list[int]) -> Blobs:
    return Blobs(blobs.area[:, own], blobs.centroid[:, own], blobs.compactness[:, own])


def _mechanics(tracks: Tracks) -> dict[str, float]:
    """What the tracks tell of each law, nan where they give no occasion."""
    walls, pair = contacts(tracks)
    free = _free(tracks, walls, pair)
    pulls = accelerations(tracks, free)
    gravity = median(pulls, LEAST_WINDOWS)
    bounces, impacts = _hits(tracks, walls, pair, free, gravity)
    return {
        "gravity": gravity,
        "gravity_spread": median(np.abs(pulls - gravity), LEAST_WINDOWS),
        "energy_variation": _energy_variation(tracks, free),
        "restitution": median(bounces),
        "momentum_error": median(impacts),
    }


def _velocity_error(seen: Tracks, ideal: Tracks) -> tuple[float, float]:
    """Mean distance of velocities between frames from the true ones, and the mean true speed."""
    velocity, truth = (np.diff(tracks.places, axis=0) / seen.dt for tracks in (seen, ideal))
    known = seen.found[1:] & seen.found[:-1]
    off = np.linalg.norm(velocity - truth, axis=-1)[known]
    typical = float(np.linalg.norm(truth, axis=-1).mean())
    return (float(off.mean()) if off.size else math.nan), typical


def contacts(
    tracks: Tracks,
) -> tuple[Bool[np.ndarray, "t-1 n 2"], Bool[np.ndarray, " t-1"]]:
    """Between which frames a disc may touch a wall of an axis, and the discs each other."""
    low, high = (_may_close(gap, tracks) for gap in tracks.gaps)
    walls = low | high
    apart = tracks.places[:, 0] - tracks.places[:, 1]
    gap = np.linalg.norm(apart, axis=-1) - tracks.radii.sum()
    steps = _beside(np.linalg.norm(np.diff(apart, axis=0), axis=-1))
    # Beside a wall's contact, which folds a step, all that is known is how far discs go at most.
    alone = np.linalg.norm(np.diff(tracks.places, axis=0), axis=-1)
    farthest = np.maximum(_beside(alone), _beside(_beside(alone))).sum(1)
    steps = np.where(_beside(walls.any((1, 2))), farthest, steps)
    pair = ~(gap[:-1] + gap[1:] > STEP_MARGIN * steps + tracks.margin)
    return walls, np.asarray(pair)


def _may_close(gap: np.ndarray, tracks: Tracks) -> np.ndarray:
    """Where a gap [t, n, 2] to walls may close between two frames; also where it is unknown."""
    steps = _beside(np.abs(np.diff(tracks.places, axis=0)))
    # At a floor, gravity makes the step of the contact longer than those beside.
    steps = steps + np.array([0.0, tracks.truth.scene.gravity * tracks.dt**2])
    return np.asarray(~(gap[:-1] + gap[1:] > STEP_MARGIN * steps + tracks.margin))


def _beside(steps: np.ndarray) -> np.ndarray:
    """The longer of the steps before and after each one, which a contact does not shorten."""
    padded = np.concatenate([steps[1:2], steps, steps[-2:-1]])
    return np.maximum(padded[:-2], padded[2:])


def _free(tracks: Tracks, walls: np.ndarray, pair: np.ndarray) -> Bool[np.ndarray, "t-1 n"]:
    known = tracks.found[1:] & tracks.found[:-1]
    return np.asarray(known & ~walls.any(-1) & ~pair[:, None])


def _windows(free: np.ndarray) -> Bool[np.ndarray, "t-4 n"]:
    return np.asarray(sliding_window_view(free, WINDOW - 1, axis=0).all(-1))


def accelerations(tracks: Tracks, free: np.ndarray) -> Float[np.ndarray, " m"]:
    """Downward acceleration in each window of free flight."""
    curves = sliding_window_view(tracks.places[..., 1], WINDOW, axis=0) @ CURVE
    return np.asarray(curves[_windows(free)] / tracks.dt**2)


def _energy_variation(tracks: Tracks, free: np.ndarray) -> float:
    """Standard deviation of the energy of both discs over its mean, while both fly free."""
    windows = sliding_window_view(tracks.places, WINDOW, axis=0)
    velocities = windows @ SLOPE / tracks.dt
    heights = 1 - tracks.places[WINDOW // 2 : -(WINDOW // 2), :, 1]
    each = 0.5 * (velocities**2).sum(-1) + tracks.truth.scene.gravity * heights
    energy = (each @ tracks.masses)[_windows(free).all(1)]
    return float(energy.std() / energy.mean()) if len(energy) >= WINDOW else math.nan


def _hits(
    tracks: Tracks, walls: np.ndarray, pair: np.ndarray, free: np.ndarray, gravity: float
) -> tuple[np.ndarray, np.ndarray]:
    """Restitutions at walls and between discs, and relative errors of momentum between discs.

    A hit is where the flight of three frames before would go on through a wall or disc; it counts
    where three frames of free flight follow.
    """
    before, after = _velocities(tracks, free, gravity)
    at_walls = _wall_bounces(tracks, before, after, pair, gravity)
    clear = pair & ~walls.any((1, 2))
    between, errors = _impacts(tracks, before, after, clear, gravity)
    return np.concatenate([at_walls, between]), errors


def _velocities(tracks: Tracks, free: np.ndarray, gravity: float) -> tuple[np.ndarray, np.ndarray]:
    """Velocities [t-1, n, 2] on the near sides of each interval: at its first frame from the three
    up to there, and at its last from the three from there on. nan without free flight."""
    steps = (tracks.places[2:] - tracks.places[:-2]) / (2 * tracks.dt)
    steps = np.where((free[1:] & free[:-1])[..., None], steps, np.nan)
    speed_up = np.array([0.0, gravity * tracks.dt])
    before = np.full((len(free), *steps.shape[1:]), np.nan)
    after = before.copy()
    before[2:] = (steps + speed_up)[:-1]
    after[:-2] = (steps - speed_up)[1:]
    return before, after


def _wall_bounces(
    tracks: Tracks, before: np.ndarray, after: np.ndarray, pair: np.ndarray, gravity: float
) -> np.ndarray:
    """Speeds after over before, both as at the wall."""
    found = []
    for side, gap in zip((-1.0, 1.0), tracks.gaps, strict=True):
        pull = side * np.array([0.0, gravity])
        towards, away = side * before, -side * after
        ahead = gap[:-1] - towards * tracks.dt - 0.5 * pull * tracks.dt**2
        energy_in = towards**2 + 2 * pull * gap[:-1]
        energy_out = away**2 + 2 * pull * gap[1:]
        hit = (ahead < 0) & (towards > 0) & (energy_in > 0) & (energy_out > 0)
        hit &= ~pair[:, None, None]
        found.append(np.sign(away[hit]) * np.sqrt(energy_out[hit] / energy_in[hit]))
    return np.concatenate(found)


def _impacts(
    tracks: Tracks, before: np.ndarray, after: np.ndarray, clear: np.ndarray, gravity: float
) -> tuple[np.ndarray, np.ndarray]:
    """Restitution and relative error of momentum of each impact of the discs."""
    closing = before[:, 0] - before[:, 1]
    towards = -((tracks.places[:-1, 0] - tracks.places[:-1, 1]) * closing).sum(-1)
    known = np.isfinite(before + after).all((1, 2)) & clear & (towards > 0)
    apart = (tracks.places[:-1, 0] - tracks.places[:-1, 1])[known]
    before, after, change, nearing = (each[known] for each in (before, after, closing, towards))
    rate, reach = (change**2).sum(-1), tracks.radii.sum()
    # The squared half chord that the line of flight cuts from the disc of radius `reach`.
    chord = reach**2 - (apart**2).sum(-1) + nearing**2 / rate
    contact = (nearing - np.sqrt(rate * np.maximum(chord, 0))) / rate
    normal = apart + contact[:, None] * change
    changed = after[:, 0] - after[:, 1]
    head_on = chord > (1 - HEAD_ON**2) * reach**2  # of the others, discs may hardly touch
    met = np.where(head_on, (change * normal).sum(-1), np.nan)
    restitutions = -(changed * normal).sum(-1) / met
    # Gravity acts on all alike from the first frame to the last, and is taken out.
    fall = np.array([0.0, gravity * tracks.dt])
    gained = ((after - before - fall) * tracks.masses[:, None]).sum(1)
    total = (np.linalg.norm(before, axis=-1) * tracks.masses).sum(-1)
    # Of a slower approach, the frame of the impact is not to be told.
    brisk = np.sqrt(rate) * tracks.dt > BRISK * tracks.margin
    hit = head_on & brisk & (contact < tracks.dt + tracks.margin / np.sqrt(rate))
    return restitutions[hit], (np.linalg.norm(gained, axis=-1) / total)[hit]


def _facts_right(seen: Tracks, blobs: Blobs) -> float:
    """Share of the caption that is true: of each disc its colour, size, direction and speed."""
    start = max(2, len(seen.places) // 8)
    right: list[bool] = []
    for index, body in enumerate(seen.truth.scene.bodies):
        found = bool(seen.found[:start, index].all())
        across = seen.places[:start, index, 0]
        speed = float(np.polyfit(np.arange(start), across, 1)[0]) / seen.dt if found else 0.0
        area = float(np.median(blobs.area[:start, index])) if found else 0.0
        right += [found, found and size_of(math.sqrt(area / math.pi)) == body.size]
        right.append(speed != 0 and direction_of(speed, 0) == direction_of(*body.velocity))
        right.append(speed != 0 and speed_of(abs(speed)) == speed_of(abs(body.velocity[0])))
    return share(right)
