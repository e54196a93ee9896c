"""check that learning rates transfer over the width of an experiment's transformer.

    sora sweep mup coordinates EXPERIMENT --output DIR   activations after a few updates, by width
    sora sweep mup rates EXPERIMENT --output DIR         held-out losses by width and peak rate

Each trains the experiment's transformer, with its optimizer and objective, at several widths with
heads of one width, on made-up clips: once by muP, of which the least width is the base, and once
as usual. Under muP slopes are near 0 and the best rate stays where it is. In DIR: a plot, and the
numbers as JSON. Then train a wide network with --set dit.base_width=NARROW and the narrow one's
rate. Small widths and few layers say it all: --set dit.depth=2 --set text.depth=1.
"""

import dataclasses
import datetime
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from sora_jax.cli.main import run as run_command
from sora_jax.config import ConfigError, load_experiment
from sora_jax.files import local_path, write_json, writing
from sora_jax.scaling.width_transfer import (
    Basins,
    Coordinates,
    draw_basins,
    draw_coordinates,
)
from sora_jax.train.executables import keep_on_disk
from sora_jax.width_checks import check_coordinates, check_rates

FLAGS = flags.FlagValues()
OUTPUT = flags.DEFINE_string("output", None, "directory to write into", flag_values=FLAGS)
WIDTHS = flags.DEFINE_list(
    "widths",
    ["64", "128", "256"],
    "of the transformer, in multiples of its heads' width; the least is the base",
    flag_values=FLAGS,
)
RATES = flags.DEFINE_list(
    "rates",
    ["0.002", "0.004", "0.008", "0.016", "0.032"],
    "of rates: peak rates, at least three",
    flag_values=FLAGS,
)
RATE = flags.DEFINE_float("rate", 0.008, "of coordinates: the rate", flag_values=FLAGS)
STEPS = flags.DEFINE_integer(
    "steps", None, "updates (default: 4 of coordinates, 120 of rates)", 1, flag_values=FLAGS
)
ROWS = flags.DEFINE_integer("rows", 4, "clips in a batch", 1, flag_values=FLAGS)
SET = flags.DEFINE_multi_string(
    "set", [], "change the experiment: --set dit.depth=2", flag_values=FLAGS
)


def main(argv: Sequence[str]) -> None:
    """Runs the check that the words name."""
    match list(argv[1:]):
        case ["coordinates" | "rates" as check, name] if OUTPUT.value is not None:
            output = local_path(OUTPUT.value)
        case words:
            raise ConfigError(
                f"'sora sweep mup {' '.join(words)}' is not understood: give coordinates "
                "EXPERIMENT or rates EXPERIMENT, and --output, a directory"
            )
    keep_on_disk()
    experiment = load_experiment(name, SET.value)
    widths, rows = _numbers("widths", WIDTHS.value, 2, int), ROWS.value
    result: dict[str, Any]
    if check == "coordinates":
        _numbers("rate", [str(RATE.value)], 1)
        steps = STEPS.value or 4
        coordinates = check_coordinates(experiment, widths, RATE.value, steps, rows, _say)
        result = {"rate": RATE.value, **_report_coordinates(coordinates, output)}
    else:
        rates, steps = _numbers("rates", RATES.value, 3), STEPS.value or 120
        basins = check_rates(experiment, widths, rates, steps, rows, _say)
        result = _report_basins(basins, output)
    made_by: dict[str, Any] = {
        "command": f"sora sweep mup {' '.join(sys.argv[1:])}",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores, {jax.devices()[0].device_kind}",
        "versions": {"jax": jax.__version__, "python": sys.version.split()[0]},
        "steps": steps,
        "rows": rows,
    }
    write_json(output / f"{check}.json", _without_infinities({**made_by, **result}))
    print(f"{output / check}.json and .png")


def _report_coordinates(found: Coordinates, output: Path) -> dict[str, Any]:
    with writing(output / "coordinates.png") as path:
        draw_coordinates(found, path)
    slopes = found.slopes()
    print("d log |activation| / d log width")
    for part in next(iter(slopes.values())):
        values = "".join(f"  {name} {each[part]:+.2f}" for name, each in slopes.items())
        print(f"  {part:18}{values}")
    return {**dataclasses.asdict(found), "slopes": slopes}


def _report_basins(found: Basins, output: Path) -> dict[str, Any]:
    with writing(output / "rates.png") as path:
        draw_basins(found, path)
    best, octaves = found.best(), found.octaves()
    for name, by_width in best.items():
        values = "  ".join(f"{width}: 2^{value:.2f}" for width, value in by_width.items())
        print(f"{name}: the best rate moves {octaves[name]:.2f} octaves: {values}")
    for name, widths in found.at_edge().items():
        if widths:
            print(f"{name}: at the edge of --rates at widths {widths}: give rates beyond")
    more = {"log2_best_rate": best, "octaves": octaves, "transferred": found.transferred()}
    return {**dataclasses.asdict(found), **more}


def _without_infinities(value: Any) -> Any:
    """JSON has no numbers that are not finite: null for a loss that diverged."""
    if isinstance(value, dict):
        return {name: _without_infinities(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_infinities(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(flag: str, values: Sequence[str], at_least: int, kind: type = float) -> list[Any]:
    """The flag's numbers, rising."""
    try:
        numbers = sorted({kind(value) for value in values})
    except ValueError:
        numbers = []
    if len(numbers) < at_least or not all(0 < number < math.inf for number in numbers):
        raise ConfigError(
            f"--{flag}={','.join(values)}: give at least {at_least} positive numbers, parted by "
            "commas"
        )
    return numbers


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    run_command(sys.modules[__name__], sys.argv[1:])
