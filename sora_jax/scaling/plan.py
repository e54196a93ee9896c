"""A plan: the runs of a sweep, each with all that a worker needs to train it, as plan.json."""

import dataclasses
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sora_jax.errors import ConfigError
from sora_jax.files import write_json
from sora_jax.page import Table

PLAN_FILE = "plan.json"
SCHEMA = 1
# Three consecutive budgets of 4x in all give exponents of .37 to .59 on the runs of
# arXiv:2406.19146, six of 32x .47 to .52.
LEAST_BUDGETS, LEAST_RATIO, LEAST_SIZES = 6, 32.0, 7


@dataclasses.dataclass(frozen=True)
class PlannedRun:
    """One run, by everything that is known of it before it is trained.

    run: `run_id` of what decides it. cluster: runs whose results are correlated share it. A run
    with a constant rate up to its decay goes the way of a longer one until then: it may be started
    from the checkpoint that run `branch_of` keeps at `branch_step`, and comes out as if it had been
    trained from the start, which `flops`, `tokens` and `steps` count from.

    budget: training FLOPs asked for; flops: those that it takes, by the exact counter. tokens:
    spacetime patches trained on, padding not counted; batch_tokens: of a step. memory_bytes: of a
    device, estimated. hours and cost, in dollars: on the slice, at the utilisation it is assumed to
    reach, of what is to be trained. experiment: the whole config as plain data, which
    `config.from_dict` takes; fingerprint: of the part of it that decides what is learned.
    """

    run: str
    cluster: str
    budget: float
    flops: int
    parameters: int
    parameters_without_embedding: int
    width: int
    depth: int
    heads: int
    steps: int
    tokens: int
    batch_tokens: float
    peak_rate: float
    warmup_steps: int
    rule: str
    parametrisation: str
    seed: int
    memory_bytes: int
    slice: str
    hours: float
    cost: float
    code: str
    data: str
    fingerprint: str
    experiment: Mapping[str, Any]
    branch_of: str | None = None
    branch_step: int | None = None

    @property
    def warmup_share(self) -> float:
        """Of the run's steps."""
        return self.warmup_steps / self.steps


def run_id(fingerprint: str, code: str, data: str, seed: int) -> str:
    """12 hex digits over what decides a run: its config, the code, the data and the seed."""
    content = json.dumps({"config": fingerprint, "code": code, "data": data, "seed": seed})
    return hashlib.sha256(content.encode()).hexdigest()[:12]


def merged(planned: Sequence[PlannedRun], added: Sequence[PlannedRun]) -> list[PlannedRun]:
    """A plan with the runs that it lacks. One that is planned stays as it is, whatever code would
    train it now: what was done is not done again."""
    known = {(run.fingerprint, run.data) for run in planned}
    new = [run for run in added if (run.fingerprint, run.data) not in known]
    return sorted([*planned, *new], key=lambda run: (run.budget, run.parameters, run.seed))


def check_reach(budgets: Iterable[float], sizes: int) -> None:
    """Raises ConfigError for a sweep from which no exponent can be read."""
    found = sorted(set(budgets))
    if len(found) < LEAST_BUDGETS or found[-1] < (1 - 1e-9) * LEAST_RATIO * found[0]:
        raise ConfigError(
            f"{len(found)} budgets over {found[-1] / found[0]:.3g}x tell no exponent: give "
            f"{LEAST_BUDGETS} or more over {LEAST_RATIO:g}x or more, or --few if that is no aim"
        )
    if sizes < LEAST_SIZES:
        raise ConfigError(
            f"{sizes} sizes a budget tell no optimum: give {LEAST_SIZES} or more, or --few if that "
            "is no aim"
        )


def within_hours(
    runs: Sequence[PlannedRun], hours: float
) -> tuple[list[PlannedRun], list[PlannedRun]]:
    """(Runs that take so many hours in all, runs that are left out): whole budgets, the largest
    first, since a budget without some of its sizes has no optimum to read."""
    kept = sorted(runs, key=lambda run: run.budget)
    dropped: list[PlannedRun] = []
    while kept and sum(run.hours for run in kept) > hours:
        largest = kept[-1].budget
        dropped = [run for run in kept if run.budget == largest] + dropped
        kept = [run for run in kept if run.budget < largest]
    return kept, dropped


def save_plan(path: Path, runs: Sequence[PlannedRun]) -> None:
    """Writes plan.json whole, or leaves what was there; raises UserError if it cannot be."""
    write_json(path, {"schema": SCHEMA, "runs": [dataclasses.asdict(run) for run in runs]})


def load_plan(path: Path) -> list[PlannedRun]:
    """The runs of a plan.json. Raises ConfigError if it is missing, or no plan of this version."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ConfigError(
                f"{path} is a plan of version {content['schema']}, and this code reads version "
                f"{SCHEMA}: use the code that wrote it, or plan into another directory"
            )
        return [PlannedRun(**run) for run in content["runs"]]
    except OSError as error:
        raise ConfigError(f"cannot read the plan {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(
            f"{path} is no plan of `sora sweep plan`: {error}: remove it, or plan elsewhere"
        ) from error


def plan_table(runs: Sequence[PlannedRun]) -> Table:
    """A row a run."""
    header = (
        "run",
        "budget",
        "width x depth",
        "parameters",
        "tokens",
        "FLOPs",
        "steps",
        "batch",
        "rate",
        "warm-up",
        "GiB",
        "slice",
        "hours",
        "cost, $",
    )
    rows = [
        (
            run.run,
            f"{run.budget:.3g}",
            f"{run.width}x{run.depth}",
            f"{run.parameters:,}",
            f"{run.tokens:.3g}",
            f"{run.flops:.4g}",
            f"{run.steps:,}",
            f"{run.batch_tokens:,.0f}",
            f"{run.peak_rate:.2e}",
            f"{run.warmup_share:.1%}",
            f"{run.memory_bytes / 2**30:.2f}",
            run.slice,
            f"{run.hours:.3g}",
            f"{run.cost:,.2f}",
        )
        for run in runs
    ]
    return Table("Planned runs", header, tuple(rows))
