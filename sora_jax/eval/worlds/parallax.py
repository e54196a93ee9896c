"""Whether a pan shows a space: dots move as their depth has it, together, and come back.

The way of a dot is the least-squares factor between its track and the swing of the camera, so that
it uses every frame in which the dot is whole.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, UInt8

from sora_jax.eval.worlds.measure import Measure, Measures, median, moved, share
from sora_jax.world.pan import HEADING, PARALLAX, Pan, places, speed_of, swing, whole
from sora_jax.world.unmix import find

LEAST_FRAMES = 4
LEAST_SPEED = 0.1  # of the camera's, below which there is no parallax to speak of
WORST_LOOP = 0.25
"""Mean distance between places on the way out and back, over the mean way of the dots."""
WORST_MISFIT = 0.25


def measure(video: UInt8[np.ndarray, "t h w 3"], truth: Pan) -> Measures:
    """The metrics of a clip that should show this truth."""
    blobs = find(video, [dot.colour for dot in truth.dots])
    areas = np.array([math.pi * dot.radius**2 for dot in truth.dots])
    track = blobs.centroid
    seen = blobs.present(areas) & whole(track, truth)
    true_track = places(truth)
    due = whole(true_track, truth)
    motion = moved(track, seen, true_track, due)
    ways = _ways(track, seen, truth)
    far = np.array([dot.nearness == 1 for dot in truth.dots])
    speed = median(ways[far & np.isfinite(ways)])
    near_speed = median(ways[~far & np.isfinite(ways)])
    parallax = near_speed / speed if speed > LEAST_SPEED else math.nan
    late = np.arange(truth.frames) >= truth.frames / 2
    gate, camera = motion.score, Measure(speed, 1.0, 0.0)
    return {
        "moved": motion,
        "camera_speed": camera,
        "parallax": Measure(parallax, PARALLAX, 1.0, camera.score),
        "rigidity_misfit": Measure(_misfit(track, seen, truth, far), 0.0, WORST_MISFIT, gate),
        "loop_error": Measure(_loop_error(track, seen, truth), 0.0, WORST_LOOP, gate),
        "dots_returned": Measure(share(seen[late][due[late]]), 1.0, 0.0, gate),
        "caption_facts": Measure(_facts_right(seen, ways, speed, truth), 1.0, 0.0, gate),
    }


def _ways(
    track: Float[np.ndarray, "t k 2"], seen: Bool[np.ndarray, "t k"], truth: Pan
) -> Float[np.ndarray, " k"]:
    """How far each dot goes against the camera, over how far far ones should; nan where too few
    frames show it."""
    camera = HEADING[truth.direction] * truth.travel * swing(truth.frames)
    ways = np.full(seen.shape[1], np.nan)
    for k, own in enumerate(seen.T):
        if own.sum() >= LEAST_FRAMES and np.ptp(camera[own]) > 0:
            at = track[own, k, 0]
            ways[k] = -np.polyfit(camera[own], at - at[0], 1)[0]  # of no motion it is exactly 0
    return ways


def _misfit(
    track: Float[np.ndarray, "t k 2"],
    seen: Bool[np.ndarray, "t k"],
    truth: Pan,
    far: Bool[np.ndarray, " k"],
) -> float:
    """What is left of the motion if all dots of a depth move as one with the swing of the camera,
    over the motion: root of the ratio of the squares. nan where no dot is followed, or moves."""
    left = total = 0.0
    for layer in (far, ~far):
        centred, camera = [], []
        for k in np.flatnonzero(layer & (seen.sum(0) >= LEAST_FRAMES)):
            own, turn = track[seen[:, k], k], swing(truth.frames)[seen[:, k]]
            centred.append(own - own.mean(0))
            camera.append(turn - turn.mean())
        if centred:
            moves, turns = np.concatenate(centred), np.concatenate(camera)
            common = turns @ moves / max(turns @ turns, 1e-9)
            left += float(((moves - turns[:, None] * common) ** 2).sum())
            total += float((moves**2).sum())
    return math.sqrt(left / total) if total > 0 else math.nan


def _loop_error(
    track: Float[np.ndarray, "t k 2"], seen: Bool[np.ndarray, "t k"], truth: Pan
) -> float:
    """Mean distance of places on the way out from those at the same point of the way back, over
    the mean way that the dots should go; nan where no dot is seen on both."""
    both = (seen & seen[::-1])[: truth.frames // 2]
    off = np.linalg.norm(track - track[::-1], axis=-1)[: truth.frames // 2][both]
    way = truth.travel * float(np.mean([dot.nearness for dot in truth.dots]))
    return float(off.mean()) / way if off.size else math.nan


def _facts_right(
    seen: Bool[np.ndarray, "t k"], ways: Float[np.ndarray, " k"], speed: float, truth: Pan
) -> float:
    """Share of the caption that is true: each dot is there and at its depth; the direction and the
    speed of the camera."""
    right = []
    for k, dot in enumerate(truth.dots):
        is_near = ways[k] > speed * math.sqrt(PARALLAX)
        right.append(bool(seen[0, k] and speed > 0 and is_near == (dot.nearness > 1)))
    right.append(speed > 0)
    right.append(speed > 0 and speed_of(speed * truth.travel) == speed_of(truth.travel))
    return share(right)
