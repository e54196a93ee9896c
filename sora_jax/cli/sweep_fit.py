"""fit scaling laws to the runs of a sweep, each with intervals and with what speaks against it.

    sora sweep fit --input points.csv --output fit.json

The input is a CSV with columns flops, params, tokens and loss (optional: budget, cluster,
batch_tokens, peak_rate and more; other numbers are metrics), a file of records, or the directory of
a sweep. Best sizes come from IsoFLOP parabolas and from the envelope, the parametric law by Huber's
loss and by least absolute deviation. Plots and a page are written beside the output.
"""

import sys
from collections.abc import Sequence

from absl import flags

from sora_jax.cli.main import run as run_command
from sora_jax.config import ConfigError
from sora_jax.files import local_path
from sora_jax.scaling.fit import RESAMPLES, fit_sweep, write_fit
from sora_jax.scaling.plots import laws_table, write_page
from sora_jax.scaling.points import read_points

FLAGS = flags.FlagValues()
INPUT = flags.DEFINE_string(
    "input", None, "CSV of points, records as .jsonl or .parquet, or a directory", flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string("output", None, "the .json to write", flag_values=FLAGS)
PLOTS = flags.DEFINE_string(
    "plots", None, "directory of plots and page (default: OUTPUT without .json)", flag_values=FLAGS
)
SAMPLES = flags.DEFINE_integer(
    "resamples", RESAMPLES, "of the runs, for intervals", lower_bound=100, flag_values=FLAGS
)


def main(argv: Sequence[str]) -> None:
    """Fits, writes the laws, plots them."""
    if len(argv) > 1 or INPUT.value is None or OUTPUT.value is None:
        raise ConfigError("sora sweep fit needs --input and --output, and no other words")
    source, output = local_path(INPUT.value), local_path(OUTPUT.value)
    if output.suffix != ".json":
        raise ConfigError(f"--output {output}: the fit is a .json, so end it in that")
    fit = fit_sweep(read_points(source), str(source), SAMPLES.value)
    write_fit(output, fit)
    page = write_page(local_path(PLOTS.value or str(output.with_suffix(""))), fit, source.name)
    print(laws_table(fit).text())
    for warning in fit.warnings:
        print(f"warning: {warning}")
    print(f"{output} and {page}")


if __name__ == "__main__":
    run_command(sys.modules[__name__], sys.argv[1:])
