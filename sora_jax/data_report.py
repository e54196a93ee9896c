"""The batches of a transformer's training, by shape class: known without a set.

Which bucket a batch is of, its shape class and the FLOPs of that all follow from the experiment. So
padding and classes of unequal cost are seen before a set is built or a pod rented. A step takes
`micro_batches` of these batches: periods are told in steps, all else by the batch.
"""

import dataclasses
from collections.abc import Sequence

from sora_jax.data.buckets import ShapeClass, weights_by_period
from sora_jax.data.schedule import Schedule
from sora_jax.experiment import Experiment
from sora_jax.scaling.flops import train_flops
from sora_jax.work import flops_row

HEADINGS = ("class", "batches", "rows", "tokens/row", "padding", "tokens/batch", "cost")


@dataclasses.dataclass(frozen=True)
class Line:
    """Batches of one shape class in a period, or of all; numbers are means over the batches."""

    name: str  # rows x tokens, or "all"
    share: float  # of the period's batches
    rows: float
    tokens: float  # of a batch, padding counted
    padding: float  # of these
    cost: float  # training FLOPs of a batch; in a report as a multiple of the mean

    def __str__(self) -> str:
        values = (
            f"{self.share:.1%}",
            f"{self.rows:,.1f}",
            f"{self.tokens / self.rows:,.1f}",
            f"{self.padding / self.tokens:.1%}",
            f"{self.tokens:,.0f}",
            f"{self.cost:.3f}",
        )
        return _columns(self.name, *values)


@dataclasses.dataclass(frozen=True)
class PeriodReport:
    """Of the steps from one change of the buckets' weights to the next."""

    start_step: int
    classes: tuple[Line, ...]  # those that are drawn, in the order of the experiment
    all: Line


def schedule_report(experiment: Experiment) -> list[PeriodReport]:
    """A report of each period of the curriculum, of whole blocks of the schedule."""
    periods = weights_by_period(experiment.data.buckets, experiment.dit_stage.curriculum)
    shares = Schedule(periods, experiment.seed).shares
    return [
        _period(experiment, start, of_buckets)
        for (start, _), of_buckets in zip(periods, shares, strict=True)
    ]


def report_text(reports: Sequence[PeriodReport]) -> str:
    """A table for each period."""
    tables = []
    for number, report in enumerate(reports):
        ends = reports[number + 1].start_step if number + 1 < len(reports) else None
        steps = f"steps {report.start_step} to {ends - 1}" if ends else "all steps"
        if ends is None and report.start_step:
            steps = f"steps from {report.start_step} on"
        tables.append(
            "\n".join([steps, _columns(*HEADINGS), *map(str, (*report.classes, report.all))])
        )
    return "\n\n".join(tables)


def _period(experiment: Experiment, start_step: int, shares: Sequence[float]) -> PeriodReport:
    """`shares`: of the batches, of each bucket."""
    data, lines = experiment.data, []
    buckets = list(zip(data.buckets, experiment.classes(), shares, strict=True))
    for shape_class in data.shape_classes:
        own = [(bucket, share) for bucket, its, share in buckets if its == shape_class and share]
        if not own:
            continue
        share = sum(share for _, share in own)
        sizes = [(experiment.tokens(bucket), share) for bucket, share in own]
        held = sum(share * n * shape_class.clips_in_row(n) for n, share in sizes) / share
        lines.append(
            Line(
                name=f"{shape_class.rows}x{shape_class.tokens}",
                share=share,
                rows=shape_class.rows,
                tokens=shape_class.rows * shape_class.tokens,
                padding=shape_class.rows * (shape_class.tokens - held),
                cost=_cost(experiment, shape_class),
            )
        )
    total = {
        name: sum(line.share * getattr(line, name) for line in lines)
        for name in ("rows", "tokens", "padding", "cost")
    }
    lines = [dataclasses.replace(line, cost=line.cost / total["cost"]) for line in lines]
    return PeriodReport(start_step, tuple(lines), Line("all", 1.0, **{**total, "cost": 1.0}))


def _cost(experiment: Experiment, shape_class: ShapeClass) -> int:
    """Training FLOPs of a batch, of the transformer and of the text encoder trained with it."""
    row = flops_row(experiment, shape_class)
    return shape_class.rows * train_flops(experiment.dit, row, experiment.text)


def _columns(name: str, *values: str) -> str:
    return f"{name:14}" + "".join(f"{value:>13}" for value in values)
