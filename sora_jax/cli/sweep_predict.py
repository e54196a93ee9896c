"""say what to train with a budget, by the laws that `sora sweep fit` found.

    sora sweep predict --fit fit.json --flops 1e22
    sora sweep predict --fit fit.json --flops 1e22 --experiment dit_1b --slice v5p-256 \
        --to_experiment best.py

Size and tokens, batch and learning rate where runs told them, loss with intervals, and what a model
of 0.7 of the size would cost in loss. With --experiment also the run of the ladder's nearest size,
its steps, hours and cost on a slice, and --to_experiment writes it as a file to train. Sizes, batch
and rate then go by the flags of `sora sweep plan`, which are best those of the sweep.
"""

import dataclasses
import sys
from collections.abc import Sequence

from absl import flags

from sora_jax.cli import sweep_plan
from sora_jax.cli.main import run as run_command
from sora_jax.config import ConfigError, from_dict
from sora_jax.experiment import Experiment
from sora_jax.files import local_path, write_json
from sora_jax.planner import run_at
from sora_jax.scaling.experiment_file import changes, write_experiment
from sora_jax.scaling.plan import plan_table
from sora_jax.scaling.predict import Prediction, predict, read_fit

FLAGS = flags.FlagValues()
FIT = flags.DEFINE_string("fit", None, "the .json of sora sweep fit", flag_values=FLAGS)
FLOPS = flags.DEFINE_float("flops", None, "training FLOPs to spend", flag_values=FLAGS)
OUTPUT = flags.DEFINE_string(
    "output", None, "a .json of the prediction, beside printing it", flag_values=FLAGS
)
TO_EXPERIMENT = flags.DEFINE_string(
    "to_experiment", None, "a .py of the run, for sora train --experiment", flag_values=FLAGS
)
OF_THE_PLAN = (
    *("experiment", "set", "head_width", "aspect", "depth", "rule", "warmup_share"),
    *("slice", "price", "utilisation"),
)
for _name in OF_THE_PLAN:
    FLAGS[_name] = sweep_plan.FLAGS[_name]


def main(argv: Sequence[str]) -> None:
    """Predicts, prints, and writes where asked."""
    if len(argv) > 1 or FIT.value is None or FLOPS.value is None:
        raise ConfigError("sora sweep predict needs --fit and --flops, and no other words")
    if (TO_EXPERIMENT.value or FLAGS.slice) and FLAGS.experiment is None:
        raise ConfigError("--to_experiment and --slice are of a run of --experiment: give that too")
    if FLAGS.experiment is not None and not FLAGS.slice:
        raise ConfigError("--experiment needs --slice, what the run is to train on")
    found = predict(read_fit(local_path(FIT.value)), FLOPS.value)
    if OUTPUT.value is not None:
        write_json(local_path(OUTPUT.value), dataclasses.asdict(found))
    table = found.table()
    print(f"{table.title}, size by {found.size_by}\n{table.text()}")
    for warning in found.warnings:
        print(f"warning: {warning}")
    if FLAGS.experiment is not None:
        _show_run(found)


def _show_run(found: Prediction) -> None:
    """Of the ladder's size that is nearest to the predicted one."""
    sweep_plan.FLAGS.mark_as_parsed()  # its flags are parsed as flags of this command
    sweep = sweep_plan.sweep_of_flags()
    run = run_at(sweep, found.parameters.value, found.flops)
    print(plan_table([run]).text())
    if TO_EXPERIMENT.value is not None:
        path = local_path(TO_EXPERIMENT.value)
        overrides = changes(sweep.base, from_dict(Experiment, run.experiment))
        headline = f"{found.flops:.3g} training FLOPs as laws of a sweep have them best spent."
        write_experiment(path, FLAGS.experiment, overrides, run, headline)
        print(f"{path}: sora train --experiment {path} trains it")


if __name__ == "__main__":
    run_command(sys.modules[__name__], sys.argv[1:])
