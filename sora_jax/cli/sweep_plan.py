"""plan a sweep: which runs, how long, with what batch and rate, on what, and what they cost.

    sora sweep plan --experiment sweep --data SET --output sweeps/one \
        --budgets 1.28e11:4.096e12:6 --slice cpu-2

Writes plan.json, of which every run holds its whole experiment. Sizes are those of a ladder around
the parameters that are expected to be best for a budget, and every run meets its budget of training
FLOPs within 1 %. Given again with other budgets or seeds it adds the runs that are missing, and
leaves those that were planned as they are.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from absl import flags

from sora_jax.cli.main import run as run_command
from sora_jax.config import load_experiment
from sora_jax.data.mixture import open_clips
from sora_jax.errors import ConfigError
from sora_jax.experiment import Experiment
from sora_jax.files import local_path
from sora_jax.planner import Sweep, planned_runs
from sora_jax.pod.prices import find_slice
from sora_jax.processes import code_id
from sora_jax.scaling.ladder import Ladder
from sora_jax.scaling.plan import (
    LEAST_SIZES,
    PLAN_FILE,
    PlannedRun,
    check_reach,
    load_plan,
    merged,
    plan_table,
    save_plan,
    within_hours,
)
from sora_jax.scaling.rules import Fixed, MuP, PowerLaw, Rule
from sora_jax.work import training_tokens

FLAGS = flags.FlagValues()
EXPERIMENT = flags.DEFINE_string(
    "experiment",
    None,
    "what all runs have in common, with its batch and rate; a name or a path",
    flag_values=FLAGS,
)
SET = flags.DEFINE_multi_string("set", [], "change the experiment: --set seed=1", flag_values=FLAGS)
DATA = flags.DEFINE_multi_string(
    "data",
    [],
    "set to train on, best of latents, or NAME=DIRECTORY for each source; --dry_run needs none",
    flag_values=FLAGS,
)
OUTPUT = flags.DEFINE_string("output", None, "directory of the sweep", flag_values=FLAGS)
BUDGETS = flags.DEFINE_string(
    "budgets",
    None,
    "training FLOPs: 1e18,4e18,... or LOWEST:HIGHEST:COUNT, evenly spread in their logarithm",
    flag_values=FLAGS,
)
SIZES = flags.DEFINE_integer(
    "sizes", LEAST_SIZES, "of each budget", lower_bound=1, flag_values=FLAGS
)
SPAN = flags.DEFINE_float(
    "span", 4.0, "parameters of the largest over the expected best", flag_values=FLAGS
)
OPTIMUM = flags.DEFINE_string(
    "optimum",
    "1.5787,0.4146",
    "a,b: parameters expected to be best are a x FLOPs^b (default: of arXiv:2411.17470)",
    flag_values=FLAGS,
)
HEAD_WIDTH = flags.DEFINE_integer(
    "head_width", None, "of every size (default: the experiment's)", flag_values=FLAGS
)
ASPECT = flags.DEFINE_float(
    "aspect", None, "width over depth (default: the experiment's)", flag_values=FLAGS
)
DEPTH = flags.DEFINE_integer(
    "depth", None, "of every size, in place of --aspect", flag_values=FLAGS
)
RULE = flags.DEFINE_enum(
    "rule",
    "fixed",
    ["fixed", "mup", "power_law"],
    "batch and rate: those of the experiment; the same, transferred over width; those of "
    "arXiv:2411.17470",
    flag_values=FLAGS,
)
WARMUP_SHARE = flags.DEFINE_float("warmup_share", 0.02, "of the steps of a run", flag_values=FLAGS)
BRANCHES = flags.DEFINE_bool(
    "branches",
    False,
    "train the longest run of a size alone from its start: others leave it where their rate falls",
    flag_values=FLAGS,
)
SLICE = flags.DEFINE_multi_string(
    "slice",
    [],
    "what runs train on: v5p-8, or cpu-2; of several, the first that a run fits on",
    flag_values=FLAGS,
)
PRICE = flags.DEFINE_float(
    "price", None, "dollars of a chip-hour (default: an assumed one)", flag_values=FLAGS
)
UTILISATION = flags.DEFINE_float(
    "utilisation",
    None,
    "share of the peak that training is assumed to reach",
    flag_values=FLAGS,
)
BUDGET_HOURS = flags.DEFINE_float(
    "budget_hours",
    None,
    "for all runs, one after another: the largest budgets that do not fit are left out",
    flag_values=FLAGS,
)
FEW = flags.DEFINE_bool(
    "few", False, "plan also what is too little to read an exponent from", flag_values=FLAGS
)
DRY_RUN = flags.DEFINE_bool("dry_run", False, "print the runs alone", flag_values=FLAGS)


def main(argv: Sequence[str]) -> None:
    """Plans, prints, and writes the plan."""
    if len(argv) > 1:
        raise ConfigError(f"sora sweep plan takes flags alone, not '{' '.join(argv[1:])}'")
    if EXPERIMENT.value is None or BUDGETS.value is None or not SLICE.value:
        raise ConfigError("sora sweep plan needs --experiment, --budgets and --slice")
    if not DRY_RUN.value and (OUTPUT.value is None or not DATA.value):
        raise ConfigError("sora sweep plan needs --output and --data, or --dry_run")
    path = local_path(OUTPUT.value or "") / PLAN_FILE
    planned = load_plan(path) if OUTPUT.value and path.exists() else []
    runs = planned_runs(sweep_of_flags(), parsed_budgets(BUDGETS.value))
    if BUDGET_HOURS.value is not None:
        runs = _cut(runs, BUDGET_HOURS.value)
    if not FEW.value:
        check_reach((run.budget for run in [*planned, *runs]), SIZES.value)
    table = plan_table(runs)
    print(f"{table.title}\n{table.text()}\n{_totals(runs)}")
    if not DRY_RUN.value:
        _write(path, planned, runs)


def sweep_of_flags() -> Sweep:
    """All that is asked but the budgets. Raises ConfigError for what cannot be."""
    base: Experiment = load_experiment(EXPERIMENT.value or "", SET.value)
    dit = base.dit
    ladder = Ladder(
        head_width=HEAD_WIDTH.value or dit.width // dit.heads,
        aspect=ASPECT.value or dit.width / dit.depth,
        depth=DEPTH.value,
    )
    return Sweep(
        base=base,
        ladder=ladder,
        rule=_rule(base),
        optimum=_pair(OPTIMUM.value),
        slices=tuple(find_slice(name, PRICE.value, UTILISATION.value) for name in SLICE.value),
        code=code_id(),
        data=_data_id(base),
        sizes=SIZES.value,
        span=SPAN.value,
        warmup_share=WARMUP_SHARE.value,
        trunks=BRANCHES.value,
    )


def parsed_budgets(text: str) -> list[float]:
    """Raises ConfigError unless `text` is as --budgets says."""
    try:
        if ":" in text:
            lowest, highest, count = text.split(":")
            spread = np.geomspace(float(lowest), float(highest), int(count))
            budgets = [float(f"{budget:.6g}") for budget in spread]
        else:
            budgets = [float(word) for word in text.split(",")]
    except ValueError:
        budgets = []
    if not budgets or not all(np.isfinite(budget) and budget > 0 for budget in budgets):
        raise ConfigError(
            f"--budgets {text}: write positive FLOPs, 1e18,4e18,1.6e19 or LOWEST:HIGHEST:COUNT, "
            "such as 1e18:3.2e19:6"
        )
    return budgets


def _rule(base: Experiment) -> Rule:
    training, many = base.dit_stage.training, 10_000
    own = training_tokens(base, many) / many, training.optimizer.peak_rate
    if RULE.value == "mup":
        return MuP(*own, base_width=base.dit.width)
    return Fixed(*own) if RULE.value == "fixed" else PowerLaw()


def _pair(text: str) -> tuple[float, float]:
    try:
        coefficient, exponent = (float(word) for word in text.split(","))
    except ValueError:
        coefficient = exponent = 0.0
    if coefficient <= 0 or not 0 < exponent < 1:
        raise ConfigError(
            f"--optimum {text}: write a,b for a x FLOPs^b parameters, with a above 0 and b between "
            "0 and 1, such as 1.5787,0.4146"
        )
    return coefficient, exponent


def _data_id(base: Experiment) -> str:
    """Of the set that all runs train on, which has clips of every bucket: the budget of a run goes
    by what it draws from."""
    if not DATA.value:
        return ""
    clips = open_clips(DATA.value, base.data)
    filled = clips.filled_buckets(base.data)
    missing = [each.name for k, each in enumerate(base.data.buckets) if k not in filled]
    if missing:
        raise ConfigError(
            f"{clips.directory} has no clips of {', '.join(missing)}, so runs would draw other "
            "batches than planned: leave such buckets out of the experiment"
        )
    return clips.id


def _cut(runs: list[PlannedRun], hours: float) -> list[PlannedRun]:
    kept, dropped = within_hours(runs, hours)
    for budget in sorted({run.budget for run in dropped}):
        own = [run.hours for run in dropped if run.budget == budget]
        print(
            f"left out: {len(own)} runs of {budget:.3g} FLOPs, {sum(own):,.3g} hours, which "
            f"--budget_hours {hours:g} do not hold"
        )
    if not kept:
        raise ConfigError(f"--budget_hours {hours:g} hold not even the smallest budget")
    return kept


def _totals(runs: Sequence[PlannedRun]) -> str:
    hours, cost = sum(run.hours for run in runs), sum(run.cost for run in runs)
    slices = [find_slice(name, PRICE.value, UTILISATION.value) for name in {r.slice for r in runs}]
    assumed = ", ".join(f"{each.utilisation:.0%} of the peak of {each.name}" for each in slices)
    return (
        f"{len(runs)} runs, {sum(run.flops for run in runs):.4g} FLOPs, {hours:,.3g} hours one "
        f"after another and {cost:,.2f} dollars, assuming {assumed}"
    )


def _write(path: Path, planned: Sequence[PlannedRun], runs: Sequence[PlannedRun]) -> None:
    plan = merged(planned, runs)
    save_plan(path, plan)
    others = {run.code for run in plan} - {code_id()}
    if others:
        print(f"of these some were planned by other code, {', '.join(sorted(others))}, and stay")
    print(f"{path}: {len(plan)} runs, {len(plan) - len(planned)} of them new")


if __name__ == "__main__":
    run_command(sys.modules[__name__], sys.argv[1:])
