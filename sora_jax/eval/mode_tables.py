"""Scores of every task as a table: each beside what is wanted of it and what bounds it."""

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Literal

from sora_jax.eval.modes.cases import LONGER
from sora_jax.page import Table


@dataclasses.dataclass(frozen=True)
class Bar:
    """What is wanted of a metric of a task: a value that it is to be, at most or at least."""

    metric: str
    label: str
    side: Literal["at most", "at least"]
    value: float

    def is_met(self, measured: float) -> bool:
        return measured <= self.value if self.side == "at most" else measured >= self.value


def most(metric: str, label: str, value: float) -> Bar:
    return Bar(metric, label, "at most", value)


def least(metric: str, label: str, value: float) -> Bar:
    return Bar(metric, label, "at least", value)


BARS: dict[str, tuple[Bar, ...]] = {
    "animate": (
        most("first_frame_loss_db", "first frame, dB below the ceiling", 1),
        most("colour_step/over_usual", "colour step after it, over the truth's 95th percentile", 1),
        most("still", "clips that stand still", 0.05),
        least("direction", "direction right", 0.9),
    ),
    "extend": (
        most("given_loss_db", "given frames, dB below the ceiling", 1),
        most("trajectory_error/over_ceiling", "error of places after 0.5 s, over the ceiling's", 2),
    ),
    "extend_backward": (
        most("end_loss_db", "given end, dB below the ceiling", 1),
        most("arrival_error/over_ceiling", "error on arrival at the end, over the ceiling's", 2),
        most("jumps", "clips with a step beyond 99 % of training", 0.01),
    ),
    "backward_samples": (least("starts_differ", "pairs of 8 samples whose starts differ", 0.5),),
    "connect": (
        most("start_loss_db", "given start, dB below the ceiling", 1),
        most("end_loss_db", "given end, dB below the ceiling", 1),
        least("valid_middle", "frames between that show a valid state", 0.9),
        most("jumps", "clips with a step beyond 99 % of training", 0.01),
    ),
    "turn_into": (least("changes_once", "clips whose colour changes once", 0.9),),
    "loop": (
        most("end_loss_db", "given end, dB below the ceiling", 1),
        least("position_seam", "place at the seam within the clip's 95th percentile", 0.95),
        least("velocity_seam", "velocity at the seam within the clip's 95th percentile", 0.95),
        most("still", "clips that stand still", 0.05),
        least("period", "autocorrelation peaks at the period", 0.9),
    ),
    "edit": (
        least("attribute", "colour as it was asked for", 0.9),
        most("path_error", "paths off, in sides of the frame", 0.1),
    ),
    "strengths": (
        most("unchanged_loss_db", "of strength 0, dB below the ceiling", 1),
        least("monotone", "stronger changes more", 0.9),
    ),
    "edit_box": (
        most("outside_loss_db", "outside the box, dB below the ceiling", 1),
        least("inside_changed", "changed inside", 0.9),
        least("attribute", "colour as it was asked for", 0.9),
    ),
    "interpolate": (
        most("key_loss_db", "key frames, dB below the ceiling", 1),
        least("valid_between", "frames between that show a valid state", 0.9),
        most("jumps", "clips with a step beyond 99 % of training", 0.01),
    ),
    "remember": (
        least("colour", "colour again", 0.9),
        least("shape", "shape again", 0.9),
        least("count", "as many bodies", 0.9),
        most("still", "clips that stand still", 0.05),
    ),
    **dict.fromkeys(
        ("long", "long_rolling"),
        tuple(
            bar
            for times in LONGER
            for bar in (
                least(f"{times}x/colour", f"bodies in colour, {times} times as long", 0.9),
                least(f"{times}x/count", f"frames of as many bodies, {times} times as long", 0.9),
                most(f"{times}x/still", f"clips that stand still, {times} times as long", 0.05),
            )
        ),
    ),
}
"""Of each task, from issue to page: the one list of what is wanted."""
OF_SIZES = (
    least("round", "circles round within 5 %", 0.9),
    most("accuracy/behind", "colour, shape, count and direction behind trained sizes", 0.05),
)
COLUMNS = {
    "truth/": "truth",
    "truth_vae/": "ceiling: truth through the autoencoder",
    "frozen/": "first frame frozen",
    "another_scene/": "floor: another scene",
    "source/": "what is edited",
}
HEADER = ("", "wanted", "model", "verdict", *COLUMNS.values())
MADE = "Given frames are framed in yellow, and so is a box that is made anew."

SECTIONS = {
    f"modes_{name}": (f"{name.replace('_', ' ').capitalize()}: contact sheets", line)
    for name, line in {
        "animate": f"Made, and the truth below. {MADE}",
        "extend": f"Made, and the truth below. {MADE}",
        "extend_backward": f"Made, and the truth below. {MADE}",
        "backward_samples": f"Eight samples of one end, and the truth at the bottom. {MADE}",
        "connect": f"Made, and the truth below. {MADE}",
        "turn_into": "Made, and a hard cut below.",
        "loop": f"Made, and a smooth return below. {MADE}",
        "edit": "What is edited, made, and the truth.",
        "strengths": "What is edited, made at strengths of 0, .25, .5, .75 and 1, and the truth.",
        "edit_box": f"What is edited, made, and the truth. {MADE}",
        "interpolate": f"Made, and the truth below. {MADE}",
        "remember": "Made, and a true clip of the remembered body below.",
        "long": "Made window by window, and the truth below.",
        "long_rolling": "Made by frames that roll, and the truth below.",
        "sizes": "Made, and one of many true clips below.",
    }.items()
}
"""Headings of clips to look at, by suite."""


def mode_table(metrics: Mapping[str, float]) -> Table:
    """A row for each bar whose metric is there, and how many are met; without rows if none is."""
    rows = [_row(metrics, task, bar) for task, bar in _bars(metrics)]
    met = sum(row[HEADER.index("verdict")] == "met" for row in rows)
    return Table(f"Every task, {met} of {len(rows)} as wanted", HEADER, tuple(rows))


def _bars(metrics: Mapping[str, float]) -> Iterator[tuple[str, Bar]]:
    for task, bars in BARS.items():
        for bar in bars:
            if f"modes/{task}/{bar.metric}" in metrics:
                yield task, bar
    size = re.compile(r"modes/sizes/(\d+x\d+)/accuracy")
    for name in (match[1] for match in map(size.fullmatch, metrics) if match):
        for bar in OF_SIZES:
            if f"modes/sizes/{name}/{bar.metric}" in metrics:
                yield f"sizes/{name}", bar


def _row(metrics: Mapping[str, float], task: str, bar: Bar) -> tuple[str, ...]:
    name = f"modes/{task}/{bar.metric}"
    measured = metrics[name]
    shown = f"{measured:.3g}"
    if f"{name}/low" in metrics:
        shown += f" ({metrics[f'{name}/low']:.3g} to {metrics[f'{name}/high']:.3g})"
    first, _, rest = task.partition("/")
    # The columns of a ratio are those of what it is made of.
    beside = bar.metric.removesuffix("/over_ceiling").removesuffix("/over_usual")
    within = f"{rest}/{beside}" if rest else beside
    others = [metrics.get(f"modes/{first}/{column}{within}") for column in COLUMNS]
    return (
        f"{task.replace('_', ' ')}: {bar.label}",
        f"{bar.side} {bar.value:g}",
        shown,
        "met" if bar.is_met(measured) else "missed",
        *("" if value is None else f"{value:.3g}" for value in others),
    )
