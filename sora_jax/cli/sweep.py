"""scaling laws: from runs of many sizes to the model, tokens and loss of a larger budget.

    sora sweep plan --experiment sweep --budgets 1e16:1e18:7 --output DIR   sizes, steps and cost
    sora sweep mup rates EXPERIMENT --output DIR             whether rates transfer over width
    sora sweep run --plan plan.json --queue DIR --data SET   trains what is planned, on any machines
    sora sweep status --queue DIR                            what is done
    sora sweep fit --input points.csv --output fit.json      laws with intervals, warnings and plots
    sora sweep predict --fit fit.json --flops 1e22           what to train with a budget

`sora sweep fit --help` shows the flags of a verb.
"""

import sys
from collections.abc import Sequence

from absl import flags

from sora_jax.cli.main import run as run_command
from sora_jax.config import ConfigError
from sora_jax.errors import nearest

FLAGS = flags.FlagValues()
# Each is a command of its own, in cli/sweep_<verb>.py.
VERBS = ("plan", "mup", "run", "status", "fit", "predict")


def main(argv: Sequence[str]) -> None:
    """Says which verbs there are: what comes here has none of them."""
    word = " ".join(argv[1:])
    hint = nearest(word, VERBS) or f"; there are: {', '.join(VERBS)}"
    raise ConfigError(f"'sora sweep {word}' is not understood{hint}")


if __name__ == "__main__":
    run_command(sys.modules[__name__], sys.argv[1:])
