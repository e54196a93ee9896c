"""Whether a spinning cube is one rigid body in space, at one rate.

Tracks of a rigid body span three dimensions but for its perspective (Tomasi and Kanade, 1992), in
whatever order the frames come; one rate of rotation explains every corner in order only. Ideals
are those of the true tracks, whose perspective leaves a little over, in the frames that are seen.
"""

import math

import numpy as np
from jaxtyping import Bool, Float, UInt8

from sora_jax.eval.worlds.measure import Measure, Measures, centred, moved, share
from sora_jax.world.cube import Cube, corners, nearest_colour, places, radii, speed_of
from sora_jax.world.scene import HEADING
from sora_jax.world.unmix import find

RATES = np.linspace(0.5, 15.0, 291)
"""Radians in the time of the clip."""
LEAST_FRAMES = 6
LEAST_DEPTH = 0.3
"""Third singular value over the first, below which nothing has depth, and rank tells nothing."""
WORST_RANK, WORST_RATE = 0.15, 0.3

Track = Float[np.ndarray, "t k 2"]
Seen = Bool[np.ndarray, "t k"]


def measure(video: UInt8[np.ndarray, "t h w 3"], truth: Cube) -> Measures:
    """The metrics of a clip that should show this truth."""
    blobs = find(video, truth.colours)
    track, seen = blobs.centroid, blobs.present(math.pi * truth.radius**2)
    true_track, every = places(truth), np.ones_like(seen)
    motion = moved(*_relative(track, seen), *_relative(true_track, every))
    rank, depth = rank_residual(track, seen)
    true_rank, true_depth = rank_residual(true_track, seen)
    rate, misfit = common_rate(track, seen)
    true_rate, true_misfit = common_rate(true_track, seen)
    gate = motion.score
    deep = float(depth > LEAST_DEPTH)
    return {
        "moved": motion,
        "corners_kept": Measure(share(seen[uncovered(truth)]), 1.0, 0.0, gate),
        "depth": Measure(depth, true_depth, 0.0, gate),
        "rank3_residual": Measure(rank, true_rank, WORST_RANK, gate * deep),
        "rate_misfit": Measure(misfit, true_misfit, WORST_RATE, gate * deep),
        "spin_rate": Measure(rate, true_rate, 0.0, gate),
        "caption_facts": Measure(_facts_right(track, seen, rate, truth), 1.0, 0.0, gate),
    }


def uncovered(truth: Cube) -> Seen:
    """In which frames no nearer corner covers a part of a corner."""
    at, radius, depth = places(truth), radii(truth), corners(truth)[..., 2]
    apart = np.linalg.norm(at[:, :, None] - at[:, None], axis=-1)
    touching = apart < radius[:, :, None] + radius[:, None]
    nearer = depth[:, None] < depth[:, :, None]
    return np.asarray(~(touching & nearer).any(-1))


def _relative(track: Track, seen: Seen) -> tuple[Track, Seen]:
    """Corners from their common centre, in the frames that show all of them: a picture that moves
    as a whole turns nothing."""
    together = np.broadcast_to(seen.all(1, keepdims=True), seen.shape)
    return track - track.mean(1, keepdims=True), together


def rank_residual(track: Track, seen: Seen) -> tuple[float, float]:
    """Of frames that show every corner: what three dimensions leave of the tracks about their
    common centre, as the root of the ratio of squares; and the third singular value over the
    first. nan of fewer than `LEAST_FRAMES`."""
    relative, together = _relative(track, seen)
    shown = relative[together[:, 0]]
    if len(shown) < LEAST_FRAMES:
        return math.nan, math.nan
    rows = shown.transpose(0, 2, 1).reshape(-1, track.shape[1])
    values = np.linalg.svd(rows, compute_uv=False)
    squares = values**2
    return float(np.sqrt(squares[3:].sum() / squares.sum())), float(values[2] / values[0])


def common_rate(track: Track, seen: Seen) -> tuple[float, float]:
    """The rate of rotation, in radians in the time of the clip, that explains most of the motion of
    all corners together as circles seen from the side, and the root of the share of squares that
    it leaves. nan of fewer than `LEAST_FRAMES` of every corner, and without motion."""
    moves = np.where(seen[..., None], centred(track, seen), 0.0)
    total = float((moves**2).sum())
    if seen.sum(0).min() < LEAST_FRAMES or total == 0:
        return math.nan, math.nan
    turn = RATES[:, None] * np.linspace(0, 1, len(track))
    basis = np.stack([np.ones_like(turn), np.cos(turn), np.sin(turn)], -1)
    gram = np.einsum("rti,rtj,tk->rkij", basis, basis, seen.astype(float), optimize=True)
    moment = np.einsum("rti,tkc->rkic", basis, moves, optimize=True)
    # A slow turn hardly bends a track, which leaves the Gram matrix near singular.
    fit = np.linalg.solve(gram + 1e-9 * np.eye(3), moment)
    explained = (fit * moment).sum((1, 2, 3))
    best = int(explained.argmax())
    return float(RATES[best]), math.sqrt(max(0.0, 1 - explained[best] / total))


def _facts_right(track: Track, seen: Seen, rate: float, truth: Cube) -> float:
    """Share of the caption that is true: the corner said to be nearest is there, and moves in the
    direction of the spin; its speed."""
    nearest = truth.colours.index(nearest_colour(truth))
    start = max(3, truth.frames // 8)
    there = bool(seen[:start, nearest].all())
    way = track[start - 1, nearest] - track[0, nearest]
    ahead = float(way @ HEADING[truth.direction])
    right_way = there and ahead > 0 and ahead > 0.7 * float(np.linalg.norm(way))
    right_speed = math.isfinite(rate) and speed_of(rate) == speed_of(truth.turn)
    return share([there, right_way, right_speed])
