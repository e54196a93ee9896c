"""say what to train with a budget, by the laws that `sora sweep fit` found.

    sora sweep predict --fit fit.json --flops 1e22

Size and tokens, batch and learning rate where runs told them, loss with intervals, and what a model
of 0.7 of the size would cost in loss.
"""

import dataclasses
import sys
from collections.abc import Sequence

from absl import flags

from sora_jax.cli.main import run as run_command
from sora_jax.config import ConfigError
from sora_jax.files import local_path, write_json
from sora_jax.scaling.predict import predict, read_fit

FLAGS = flags.FlagValues()
FIT = flags.DEFINE_string("fit", None, "the .json of sora sweep fit", flag_values=FLAGS)
FLOPS = flags.DEFINE_float("flops", None, "training FLOPs to spend", flag_values=FLAGS)
OUTPUT = flags.DEFINE_string(
    "output", None, "a .json of the prediction, beside printing it", flag_values=FLAGS
)


def main(argv: Sequence[str]) -> None:
    """Predicts, prints, and writes where asked."""
    if len(argv) > 1 or FIT.value is None or FLOPS.value is None:
        raise ConfigError("sora sweep predict needs --fit and --flops, and no other words")
    found = predict(read_fit(local_path(FIT.value)), FLOPS.value)
    if OUTPUT.value is not None:
        write_json(local_path(OUTPUT.value), dataclasses.asdict(found))
    table = found.table()
    print(f"{table.title}, size by {found.size_by}\n{table.text()}")
    for warning in found.warnings:
        print(f"warning: {warning}")


if __name__ == "__main__":
    run_command(sys.modules[__name__], sys.argv[1:])
