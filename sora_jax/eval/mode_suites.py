"""How well a run does every task on the procedural world, beside what bounds it.

Every clip is read back to bodies and compared with the simulator. Columns are the model, the
truth, the truth through the autoencoder (the ceiling), the truth's first frame frozen, the truth of
another scene (what captions and given frames of something else come to), and what is edited.

    modes/animate/direction               mean over clips, with its interval
    modes/animate/truth_vae/direction     as above, of a column
    modes/extend/trajectory_error/over_ceiling   the model's as a multiple of the ceiling's
    modes/sizes/24x48/accuracy/behind     behind the mean of the trained sizes
"""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from sora_jax.data.buckets import Bucket
from sora_jax.errors import ConfigError
from sora_jax.eval.animation import colour_change
from sora_jax.eval.clip_scores import Score, prefixed
from sora_jax.eval.examples import longest
from sora_jax.eval.modes import cases, measures
from sora_jax.eval.modes.cases import Case, View
from sora_jax.eval.modes.measures import Measure, Measured, largest_step
from sora_jax.eval.modes.sheets import contact_sheet
from sora_jax.eval.reconstruction import reconstruct
from sora_jax.eval.suite import Found, Suite, Video, placed
from sora_jax.eval.world_state import frozen
from sora_jax.sample.generate import Sampler
from sora_jax.sample.long import LongRequest, frames_of
from sora_jax.world.scene import WorldConfig

TRAINING = 256  # clips of training that say which steps are usual
HISTORY_LEVEL = 0.05  # noise on what goes before: in training, the mean where there is any
Means = Mapping[str, float]
Maker = Callable[[Sampler, Sequence[Case]], list[Sequence[Video]]]


@dataclasses.dataclass(frozen=True)
class Mode:
    """A task, what is asked of it and how that is measured. `derived` makes further metrics of the
    means by name. `bounds`: whether the columns beside the model's say anything; of several clips
    of one case they do not. `make`: of each case the clips of its requests."""

    name: str
    cases: Sequence[Case]
    measure: Measure
    derived: Callable[[Means], Means] = lambda means: {}
    bounds: bool = True
    make: Maker = lambda sampler, chosen: _made(sampler, chosen)


def modes(
    world: WorldConfig,
    buckets: Sequence[Bucket],
    fps: float,
    temporal: int,
    cell: int,
    count: int,
    seed: int,
) -> list[Mode]:
    """Every task on about `count` scenes with seeds from one on, at the longest of the buckets.

    Raises:
        ConfigError: nothing moves in the world, it has too few colours, or clips are too short.
    """
    size = longest(buckets)[0]
    view = View(cases.moving(world), size.frames, size.height, size.width, fps, temporal, cell)
    if view.frames <= 2 * view.context:
        raise ConfigError(
            f"suite modes connects clips of {view.context} frames, and the longest of data.buckets "
            f"has {view.frames}: more than {2 * view.context} are needed"
        )

    def some(make: Callable[[View, int], Case], number: int = count) -> list[Case]:
        return [make(view, seed + n) for n in range(number)]

    boxes = (cases.edit_box(view, seed + n) for n in itertools.count())
    boxed = list(itertools.islice((case for case in boxes if case is not None), count))
    few = max(2, count // cases.SAMPLES)
    steady = _knowing(largest=_largest_steps(view))
    animated = some(cases.animate)
    usual = float(np.quantile([colour_change(case.truth) for case in animated], 0.95))
    return [
        Mode("animate", animated, measures.animate, _over("colour_step", usual=usual)),
        Mode("extend", some(cases.extend), measures.extend, _over("trajectory_error")),
        Mode(
            "extend_backward",
            some(cases.extend_backward),
            steady(measures.extend_backward),
            _over("arrival_error"),
        ),
        Mode(
            "backward_samples",
            some(cases.backward_samples, few),
            measures.backward_samples,
            bounds=False,
        ),
        Mode("connect", some(cases.connect), steady(measures.connect)),
        Mode("turn_into", some(cases.turn_into), measures.turn_into),
        Mode("loop", some(cases.loop), measures.loop),
        Mode("edit", some(cases.edit), measures.edit),
        Mode("strengths", some(cases.strengths, few), measures.strengths, bounds=False),
        Mode("edit_box", boxed, measures.edit_box),
        Mode("interpolate", some(cases.interpolate), steady(measures.interpolate)),
        Mode("remember", some(cases.remember), measures.remember),
        *(
            Mode(name, some(cases.goes_on, max(2, count // 2)), measures.goes_on, make=make)
            for name, make in {"long": _windows, "long_rolling": _rolling}.items()
        ),
        _sizes(view, buckets, count, seed),
    ]


def mode_suites(sampler: Sampler, tasks: Iterable[Mode]) -> list[Suite]:
    """The suites of a sampler."""
    return [_suite(sampler, mode) for mode in tasks]


def _suite(sampler: Sampler, mode: Mode) -> Suite:
    prefix, vae = f"modes/{mode.name}/", sampler.models.vae

    def find(places: Sequence[int]) -> Found:
        chosen = [mode.cases[place] for place in places]
        made = mode.make(sampler, chosen)
        truths = [case.truth for case in chosen]
        kept = reconstruct(vae, [case.reference for case in chosen])
        columns: dict[str, list[Sequence[Video]]] = {"": made}
        if mode.bounds:
            columns |= _bounds(mode, places, reconstruct(vae, truths))
        scores: dict[str, Score] = {}
        for column, clips in columns.items():
            rows = [mode.measure(*each) for each in zip(chosen, clips, kept, strict=True)]
            scores |= prefixed(f"{prefix}{column}", _scores(rows))
        lines = [
            [*([] if case.source is None else [case.source]), *clips, case.truth]
            for case, clips in zip(chosen, made, strict=True)
        ]
        sheets = [contact_sheet(*each) for each in zip(chosen, lines, strict=True)]
        return Found(scores, clips=placed(places, {"generated": sheets}))

    def further(found: Found) -> Mapping[str, float]:
        means = {
            name.removeprefix(prefix): score.mean()
            for name, score in found.scores.items()
            if score.weights.any()
        }
        return {f"{prefix}{name}": value for name, value in mode.derived(means).items()}

    settings = "\n".join(_asked(case) for case in mode.cases)
    examples = [case.example for case in mode.cases]
    return Suite(f"modes_{mode.name}", examples, find, further, settings)


def _made(sampler: Sampler, chosen: Sequence[Case]) -> list[Sequence[Video]]:
    """Of each case the clips of its requests; those of one number have one program."""
    rounds = [
        sampler.generate([case.requests[number] for case in chosen])
        for number in range(len(chosen[0].requests))
    ]
    return [[sample.video for sample in each] for each in zip(*rounds, strict=True)]


def _windows(sampler: Sampler, chosen: Sequence[Case], levels: int = 1) -> list[Sequence[Video]]:
    """Window by window, each from the end of the one before and no caption: what captions say of
    motion is of a beginning."""
    made: list[Sequence[Video]] = []
    for case in chosen:
        first, view = case.requests[0], case.view
        story = ((1 / view.fps, ""),)
        asked = LongRequest(first, len(case.truth), view.context, levels, HISTORY_LEVEL, story)
        made.append([np.concatenate(list(frames_of(sampler, asked)))])
    return made


def _rolling(sampler: Sampler, chosen: Sequence[Case]) -> list[Sequence[Video]]:
    """As `_windows`, with a noise level for each latent frame that is not given."""
    view, window = chosen[0].view, chosen[0].requests[0].frames
    return _windows(sampler, chosen, (window - view.context) // view.temporal)


def _bounds(
    mode: Mode, places: Sequence[int], decoded: Sequence[Video]
) -> dict[str, list[Sequence[Video]]]:
    """What stands beside the clips of a model, of cases by place; `decoded` are their truths."""
    chosen = [mode.cases[place] for place in places]
    columns: dict[str, list[Sequence[Video]]] = {
        "truth/": [[case.truth] for case in chosen],
        "truth_vae/": [[video] for video in decoded],
        "frozen/": [[frozen(case.truth)] for case in chosen],
        "another_scene/": [[_next(mode.cases, place).truth] for place in places],
    }
    sources = [[case.source] for case in chosen if case.source is not None]
    return columns | ({"source/": list(sources)} if sources else {})


def _next(all_cases: Sequence[Case], place: int) -> Case:
    """The next other case of one's size."""
    shape = all_cases[place].truth.shape
    after = (*all_cases[place + 1 :], *all_cases[:place])
    return next(case for case in after if case.truth.shape == shape)


def _scores(rows: Sequence[Mapping[str, float]]) -> dict[str, Score]:
    """Of each clip what was measured, and no weight where it was not."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {
        name: Score(
            np.array([float(row.get(name, 0.0)) for row in rows]),
            np.array([float(name in row) for row in rows]),
        )
        for name in names
    }


def _asked(case: Case) -> str:
    """All that requests are beside the clips they take, which follow from the scene."""
    return " ".join(
        f"{each.task} {each.prompt!r} {each.seed} {each.start_levels} {each.box}"
        f" {each.given_frames} {[(len(b.video), b.seconds) for b in each.beside]}"
        for each in case.requests
    )


def _knowing(**known: float) -> Callable[[Callable[..., Measured]], Measure]:
    """Makes measures of functions that also take what is known of all clips."""
    return lambda measure: functools.partial(measure, **known)


def _largest_steps(view: View) -> float:
    """What the largest step of a clip exceeds in one of a hundred clips of training."""
    clips = (view.render(view.scene(seed)) for seed in range(TRAINING))
    return float(np.quantile([largest_step(clip) for clip in clips], 0.99))


def _over(name: str, usual: float | None = None) -> Callable[[Means], Means]:
    """A metric as a multiple of a usual value, or of the ceiling's."""

    def derived(means: Means) -> Means:
        if usual is not None:
            return {f"{name}/over_usual": means[name] / max(usual, 1e-6)}
        return {f"{name}/over_ceiling": means[name] / max(means[f"truth_vae/{name}"], 1e-6)}

    return derived


def _sizes(view: View, buckets: Sequence[Bucket], count: int, seed: int) -> Mode:
    """Captions to clips of the first three trained sizes, and of others."""
    trained = list(dict.fromkeys((each.height, each.width) for each in buckets))
    others = cases.sizes(trained, view.cell)
    long = dict.fromkeys((each.height, each.width) for each in longest(buckets))
    usual_sizes = list(long)[:3]
    shown = [
        cases.generate(dataclasses.replace(view, height=height, width=width), seed + n)
        for height, width in (*usual_sizes, *others)
        for n in range(count)
    ]
    names = ["x".join(map(str, size)) for size in usual_sizes]

    def derived(means: Means) -> Means:
        usual = np.mean([means[f"{name}/accuracy"] for name in names])
        return {
            f"{height}x{width}/accuracy/behind": float(usual - means[f"{height}x{width}/accuracy"])
            for height, width in others
        }

    return Mode("sizes", shown, measures.sized, derived)
