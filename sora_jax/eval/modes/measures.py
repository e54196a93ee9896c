"""How well a clip does what its task asks, read from pixels.

A measure takes a case, the clips that were made for its requests, and the case's reference through
the autoencoder, and gives numbers by name. Lengths are in world units: the side of a square frame.
What cannot be read counts as a failure: a body that is not found is as far off as one at a random
place, and no share has it on its side.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from sora_jax.eval.animation import colour_change, is_still
from sora_jax.eval.modes.cases import LONGER, Case
from sora_jax.eval.modes.reading import Reading, Video, read, share_of_new
from sora_jax.eval.reconstruction import psnr
from sora_jax.eval.world_state import score
from sora_jax.world.decode import decode
from sora_jax.world.dynamics import simulate
from sora_jax.world.scene import Body, Colour, make_body

LOST = 0.5  # mean distance of two random places in a square, .52, rounded
ROUND = 0.05  # by which a circle may be wider than high, or less wide
APART = 0.05  # from which on two places are two; the decoder's own errors are a tenth of it
CHANGED_DB = 3.0  # below the autoencoder's own errors: as much again has changed
READING = 0.01  # a third of a pixel at 32 x 32: what a place is off as it is read
SEEN = 0.9  # share of frames that must show the body, in whatever colour
HALFWAY = 0.1  # about the middle of two colours, which is neither
ALMOST = 0.25  # of the way between two colours that may be left at an end

Measured = Mapping[str, float]
Measure = Callable[[Case, Sequence[Video], Video], Measured]


def animate(case: Case, clips: Sequence[Video], ceiling: Video) -> Measured:
    return {
        "first_frame_loss_db": _loss_db(case, clips[0], ceiling, [0]),
        "colour_step": colour_change(clips[0]),
        "still": is_still(clips[0]),
        "direction": told(case, clips[0])["direction"],
    }


def extend(case: Case, clips: Sequence[Video], ceiling: Video) -> Measured:
    """How far bodies are, half a second after the last given frame, from where the simulator has
    them."""
    view, reading = case.view, read(clips[0])
    frame = min(case.given[-1] + round(0.5 * view.fps), view.frames - 1)
    return {
        "given_loss_db": _loss_db(case, clips[0], ceiling, case.given),
        "trajectory_error": float(np.mean([off[frame] for off in _errors(case, reading)])),
    }


def extend_backward(
    case: Case, clips: Sequence[Video], ceiling: Video, *, largest: float
) -> Measured:
    """How far the simulator, set off from what the clip begins with, arrives from the given end.
    `largest`: step that clips of training hardly ever take, as of `connect`."""
    return {
        "end_loss_db": _loss_db(case, clips[0], ceiling, case.given),
        "arrival_error": _arrival_error(case, clips[0]),
        "jumps": largest_step(clips[0]) > largest,
    }


def backward_samples(case: Case, clips: Sequence[Video], ceiling: Video) -> Measured:
    """The share of pairs of clips that begin with a body elsewhere; one that is lost differs from
    nothing."""
    readings = [read(video[:1]) for video in clips]
    differ = []
    for one, other in itertools.combinations(readings, 2):
        distances = [
            np.linalg.norm(one.centroids(body.colour)[0] - other.centroids(body.colour)[0])
            for body in case.scene.bodies
        ]
        differ.append(bool(np.isfinite(distances).all() and max(distances) > APART))
    return {"starts_differ": float(np.mean(differ))}


def connect(case: Case, clips: Sequence[Video], ceiling: Video, *, largest: float) -> Measured:
    """`largest`: step that clips of training hardly ever take."""
    middle = [frame for frame in range(case.view.frames) if frame not in case.given]
    half = len(case.given) // 2
    return {
        "start_loss_db": _loss_db(case, clips[0], ceiling, case.given[:half]),
        "end_loss_db": _loss_db(case, clips[0], ceiling, case.given[half:]),
        "valid_middle": float(read(clips[0]).shows(_colours(case))[middle].mean()),
        "jumps": largest_step(clips[0]) > largest,
    }


def turn_into(case: Case, clips: Sequence[Video], ceiling: Video) -> Measured:
    """Whether the body has its old colour first and its new one last, and changes once between,
    at once or little by little. Frames about halfway say neither, and may be many; those that show
    no body may not."""
    new = share_of_new(clips[0], _old(case), _colours(case)[0])
    is_new = new[np.abs(new - 0.5) > HALFWAY] > 0.5
    seen = np.isfinite(new).mean() >= SEEN and np.isfinite(new[[0, -1]]).all()
    ends = seen and new[0] < ALMOST and new[-1] > 1 - ALMOST
    return {"changes_once": ends and np.count_nonzero(np.diff(is_new)) == 1}


def loop(case: Case, clips: Sequence[Video], ceiling: Video) -> Measured:
    """Of the clip less its end, which is given as its beginning is, so that frame 0 follows.

    Three repeats of anything have its period, so what was made at the end stands for the next
    repeat: `period` says whether of all lags from half of it on the clip is most like itself there.
    """
    video, half = clips[0], len(case.given) // 2
    period = case.view.frames - half
    path = read(video).centroids(*_colours(case))[:period]
    steps = np.diff(path, axis=0, append=path[:1])  # the last is over the seam
    turns = steps - np.roll(steps, 1, axis=0)  # the first and the last are over the seam
    speeds, jolts = np.linalg.norm(steps, axis=1), np.linalg.norm(turns, axis=1)
    # A comparison with nan is false: a lost body closes no loop.
    usual = np.quantile(speeds[:-1], 0.95), np.quantile(jolts[1:-1], 0.95)
    return {
        "end_loss_db": _loss_db(case, video, ceiling, case.given[half:]),
        "position_seam": bool(speeds[-1] <= usual[0] + READING),
        "velocity_seam": bool(max(jolts[0], jolts[-1]) <= usual[1] + 2 * READING),
        "still": is_still(video),
        "period": _best_lag(video, period // 2) == period,
    }


def edit(case: Case, clips: Sequence[Video], ceiling: Video) -> Measured:
    return {
        "attribute": _is_recoloured(case, clips[0]),
        "path_error": float(np.mean(_errors(case, read(clips[0])))),
    }


def strengths(case: Case, clips: Sequence[Video], ceiling: Video) -> Measured:
    """Of clips from weak to strong, the first of strength 0."""
    source = case.reference
    changes = [_distance(clip, source) for clip in clips]
    return {
        "unchanged_loss_db": psnr(ceiling, source) - psnr(clips[0], source),
        "monotone": float(np.mean(np.diff(changes) > 0)),
    }


def edit_box(case: Case, clips: Sequence[Video], ceiling: Video) -> Measured:
    assert case.box is not None
    top, bottom, left, right = case.box
    inside = np.zeros(case.truth.shape[1:3], bool)
    inside[top:bottom, left:right] = True

    def loss(of: np.ndarray) -> float:
        mine, kept, source = (clip[:, of][:, None] for clip in (clips[0], ceiling, case.reference))
        return psnr(kept, source) - psnr(mine, source)

    return {
        "outside_loss_db": loss(~inside),
        "inside_changed": loss(inside) > CHANGED_DB,
        "attribute": _is_recoloured(case, clips[0]),
    }


def interpolate(case: Case, clips: Sequence[Video], ceiling: Video, *, largest: float) -> Measured:
    """`largest`: step that clips of training hardly ever take."""
    between = [frame for frame in range(case.view.frames) if frame not in case.given]
    return {
        "key_loss_db": _loss_db(case, clips[0], ceiling, case.given),
        "valid_between": float(read(clips[0]).shows(_colours(case))[between].mean()),
        "jumps": largest_step(clips[0]) > largest,
    }


def remember(case: Case, clips: Sequence[Video], ceiling: Video) -> Measured:
    found = told(case, clips[0])
    return {
        "colour": found["colour"],
        "shape": found["shape"],
        "count": found["count"],
        "still": is_still(clips[0]),
    }


def goes_on(case: Case, clips: Sequence[Video], ceiling: Video) -> Measured:
    """By how many times as long as a clip of training: of the frames from the time before until
    then, which show the bodies' colours, which show as many bodies, and how far these are off."""
    reading, colours = read(clips[0]), _colours(case)
    off = np.mean(_errors(case, reading), axis=0)
    found = np.array([len(blobs or ()) for blobs in reading.frames])
    seen = [np.isfinite(reading.centroids(colour)[:, 0]) for colour in colours]
    clip, start, measured = (len(off) - 1) // LONGER[-1], 0, {}
    for times in LONGER:
        frames = slice(start, 1 + times * clip)
        measured[f"{times}x/colour"] = float(np.mean(seen, axis=0)[frames].mean())
        measured[f"{times}x/count"] = float((found == len(colours))[frames].mean())
        measured[f"{times}x/path_error"] = float(off[frames].mean())
        measured[f"{times}x/still"] = is_still(clips[0][frames])
        start = frames.stop
    return measured


def sized(case: Case, clips: Sequence[Video], ceiling: Video) -> Measured:
    """By the size of the clip. `round` is asked of clips that are to show a circle."""
    found = told(case, clips[0])
    names = ("colour", "shape", "count", "direction")
    measured: dict[str, float] = {name: found[name] for name in names}
    measured["accuracy"] = float(np.mean([found[name] for name in names]))
    circles = [body.colour for body in case.scene.bodies if body.shape == "circle"]
    if circles:
        reading = read(clips[0])
        # A comparison with nan is false: a circle that is lost is not round.
        is_round = [abs(reading.stretch(colour) - 1) <= ROUND for colour in circles]
        measured["round"] = float(np.mean(is_round))
    return {f"{case.view.height}x{case.view.width}/{name}": v for name, v in measured.items()}


def told(case: Case, video: Video) -> dict[str, float]:
    """Shares of right answers to the questions that the facts of the scene answer."""
    answers = score([decode(video, case.view.fps)], [case.example.facts])
    return {name.removesuffix("_accuracy"): float(each.values[0]) for name, each in answers.items()}


def largest_step(video: Video) -> float:
    """The root mean square change of colours from a frame to the next where it is largest."""
    steps = np.diff(video.astype(np.float32), axis=0)
    return float(np.sqrt(np.square(steps).mean((1, 2, 3))).max())


def _distance(one: Video, other: Video) -> float:
    return float(np.sqrt(np.mean(np.square(one.astype(np.float32) - other))))


def _loss_db(case: Case, video: Video, ceiling: Video, frames: Iterable[int]) -> float:
    """By how much frames are further from those of the truth than the autoencoder's are."""
    index = list(frames)
    truth = case.truth[index]
    return psnr(ceiling[index], truth) - psnr(video[index], truth)


def _colours(case: Case) -> list[Colour]:
    return [body.colour for body in case.scene.bodies]


def _old(case: Case) -> Colour:
    assert case.old is not None
    return case.old


def _errors(case: Case, reading: Reading) -> list[Float[np.ndarray, " t"]]:
    """Of each body, how far it is in each frame from where the simulator has it. One whose colour
    was to change is followed in either."""
    true = simulate(case.scene, case.view.times).positions
    errors = []
    for number, body in enumerate(case.scene.bodies):
        colours = {body.colour} if number or case.old is None else {body.colour, case.old}
        off = np.linalg.norm(reading.centroids(*colours) - true[:, number], axis=1)
        errors.append(np.nan_to_num(off, nan=LOST))
    return errors


def _arrival_error(case: Case, video: Video) -> float:
    """Mean distance over bodies and given frames."""
    bodies = [_first_state(case, body, video) for body in case.scene.bodies]
    found = tuple(body for body in bodies if body is not None)
    if len(found) < len(bodies):
        return LOST
    times = case.view.times[list(case.given)]
    true = simulate(case.scene, times).positions
    try:
        arrived = simulate(dataclasses.replace(case.scene, bodies=found), times).positions
    except ValueError:  # endless contacts: a body that lies on the floor goes nowhere
        return LOST
    return float(np.linalg.norm(arrived - true, axis=-1).mean())


def _first_state(case: Case, body: Body, video: Video) -> Body | None:
    """A body as it sets off in a clip; None where that cannot be read."""
    objects = decode(video, case.view.fps).objects
    found = [each for each in objects if each.colour == body.colour]
    if len(found) != 1 or found[0].velocity is None or np.isnan(found[0].centroids[0, 0]):
        return None
    inside = np.clip(found[0].centroids[0], body.radius, np.array(case.scene.box) - body.radius)
    x, y = inside.tolist()
    return make_body(body.shape, body.colour, body.size, (x, y), found[0].velocity)


def _is_recoloured(case: Case, video: Video) -> bool:
    """Whether a clip shows bodies of the colours that it is to have, and of no others."""
    objects = decode(video, case.view.fps).objects
    return sorted(each.colour for each in objects) == sorted(_colours(case))


def _best_lag(video: Video, least: int) -> int:
    """The lag, from `least` on and up to all but two frames, at which a clip is most like itself:
    where its autocorrelation peaks. Of equal ones the shortest."""
    lags = range(least, len(video) - 1)
    return min(lags, key=lambda lag: _distance(video[lag:], video[:-lag]))
