"""The runs of a sweep as arrays to fit to: which of them count, and which share a budget."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy import ndarray as Array

from sora_jax.errors import UserError
from sora_jax.scaling.foreign import read_csv
from sora_jax.scaling.records import RunRecord, read_records

# Of points that name no budget: those within a tenth share one, if they are of enough sizes.
WINDOW = 1.1
SIZES_OF_BUDGET = 4
OFF_BUDGET = 0.05  # how far spent FLOPs may be from the budget before it is told


@dataclasses.dataclass(frozen=True)
class Points:
    """Runs that are done, n of them, in the order of their FLOPs.

    Attributes:
        records: what they are of.
        budgets: training FLOPs that runs share; NaN where a run shares none.
        flops, parameters, tokens, losses: as the records have them.
        clusters: numbers from 0; the same for runs whose losses are correlated.
    """

    records: tuple[RunRecord, ...]
    budgets: Float[Array, "n"]
    flops: Float[Array, "n"]
    parameters: Float[Array, "n"]
    tokens: Float[Array, "n"]
    losses: Float[Array, "n"]
    clusters: Int[Array, "n"]

    def of(self, which: Bool[Array, "n"]) -> "Points":
        """Those of them, with clusters numbered anew."""
        return Points(
            tuple(self.records[each] for each in np.flatnonzero(which)),
            self.budgets[which],
            self.flops[which],
            self.parameters[which],
            self.tokens[which],
            self.losses[which],
            np.unique(self.clusters[which], return_inverse=True)[1],
        )

    def near_the_minimum(self, margin: float) -> Bool[Array, "n"]:
        """Which have a budget, and a loss within a share of the lowest there."""
        near = np.zeros(len(self.losses), bool)
        for budget in self.distinct_budgets:
            there = self.budgets == budget
            near |= there & (self.losses <= self.losses[there].min() * (1 + margin))
        return near

    @property
    def distinct_budgets(self) -> Float[Array, "k"]:
        """In rising order."""
        return np.unique(self.budgets[np.isfinite(self.budgets)])


def read_points(path: Path) -> list[RunRecord]:
    """The records of a CSV of points, of a file of records, or of a directory of such files."""
    return read_csv(path) if path.suffix == ".csv" else read_records(path)


def points_of(records: Sequence[RunRecord], where: str) -> tuple[Points, list[str]]:
    """The points of records, and warnings about the records.

    Where runs differ in nothing but batch and learning rate, those of the best setting count: a law
    is about runs that are tuned.

    Raises:
        UserError: no law can be fitted to them, and why; `where` names their file.
    """
    done = sorted((each for each in records if each.status == "done"), key=lambda each: each.flops)
    lost = Counter(each.status for each in records if each.status != "done")
    warnings = [f"{number} runs {status} and are left out" for status, number in lost.items()]
    if not done:
        raise UserError(f"{where}: no run is done")
    _check_alike(done, where)
    data = {each.data for each in done if each.data is not None}
    if len(data) > 1:
        warnings.append(f"runs are trained on {len(data)} sets: their losses may not compare")
    warnings += [
        f"run {each.run} spent {each.flops:.4g} FLOPs of its budget of {each.budget:.4g}"
        for each in done
        if each.budget is not None and abs(each.flops / each.budget - 1) > OFF_BUDGET
    ]
    tuned = _tuned(done)
    if len(tuned) < len(done):
        warnings.append(f"{len(done) - len(tuned)} runs of worse batches or rates are left out")
    return _arrays(tuned), warnings


def _check_alike(done: Sequence[RunRecord], where: str) -> None:
    kinds = {each.parametrisation for each in done}
    if len(kinds) > 1:
        names = " and ".join(sorted(str(kind or "unnamed") for kind in kinds))
        odd = next(each for each in done if each.parametrisation != done[0].parametrisation)
        raise UserError(
            f"{where}: runs of several parametrisations, {names} (runs {done[0].run} and "
            f"{odd.run}): no law holds for both, so fit them one by one"
        )
    if len({each.parameters for each in done}) < 2:
        raise UserError(
            f"{where}: all runs are of one size, {done[0].parameters} parameters: add other sizes"
        )
    budgets = {each.budget for each in done}
    if done[-1].flops < WINDOW * done[0].flops or (len(budgets) == 1 and None not in budgets):
        raise UserError(
            f"{where}: all runs are of one budget, {done[0].flops:.4g} FLOPs: add other budgets"
        )


def _tuned(done: Sequence[RunRecord]) -> list[RunRecord]:
    """Of runs of one size and budget those of the batch and rate with the lowest mean loss."""
    cells: dict[object, dict[object, list[RunRecord]]] = defaultdict(lambda: defaultdict(list))
    for each in done:
        # A run that spares tokens for a larger batch is still of its budget.
        cell = (each.parameters, each.budget or each.flops)
        cells[cell][each.batch_tokens, each.peak_rate].append(each)
    best = []
    for settings in cells.values():
        best += min(
            settings.values(), key=lambda runs: float(np.mean([each.loss or 0 for each in runs]))
        )
    return sorted(best, key=lambda each: each.flops)


def _arrays(records: Sequence[RunRecord]) -> Points:
    flops, parameters, tokens, losses = np.array(
        [(each.flops, each.parameters, each.tokens, each.loss) for each in records], float
    ).T
    given = np.array([each.budget for each in records], float)
    budgets = given if np.isfinite(given).all() else group_budgets(flops, parameters)
    clusters = np.unique([each.cluster for each in records], return_inverse=True)[1]
    return Points(tuple(records), budgets, flops, parameters, tokens, losses, clusters)


def group_budgets(flops: Float[Array, "n"], parameters: Float[Array, "n"]) -> Float[Array, "n"]:
    """The budget of each run, NaN for none: where most sizes stand within a tenth of FLOPs is a
    budget, then where most of what is left does, down to a third of the first one's sizes, or too
    few for a minimum. FLOPs rise.

    A budget has more than twice the runs of the tenth below, of the tenth above, and of a tenth in
    the mean. So runs between budgets stay out, and runs spread evenly over FLOPs have none.
    """
    budgets, left = np.full(len(flops), np.nan), np.arange(len(flops))
    anywhere = len(flops) * np.log(WINDOW) / np.log(WINDOW * flops[-1] / flops[0])
    fewest = max(SIZES_OF_BUDGET, 2 * anywhere)
    while True:
        groups = [
            left[start : np.searchsorted(flops[left], WINDOW * flops[left[start]], "right")]
            for start in range(len(left))
        ]
        largest = max(groups, key=lambda each: len(np.unique(parameters[each])), default=left)
        sizes = len(np.unique(parameters[largest]))
        if sizes < fewest:
            return budgets
        fewest = max(fewest, sizes / 3)
        least, most = flops[largest[[0, -1]]]
        below = int(((flops >= least / WINDOW) & (flops < least)).sum())
        above = int(((flops > most) & (flops <= most * WINDOW)).sum())
        if len(largest) > 2 * max(below, above):
            budgets[largest] = np.median(flops[largest])
        left = np.setdiff1d(left, largest)
