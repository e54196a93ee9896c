"""say what a run's wall time went into, across its restarts.

    sora goodput RUN            a table for each stage
    sora goodput RUN --json     the same for programs, in seconds

Productive is the computing of steps that are kept, each counted once. The rest is waiting for data,
checkpoints, evaluation, starting, compiling, steps that were lost with a session, the time between
sessions, and other. It adds up to the time from the first start to the last event.
"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from sora_jax.cli.main import run
from sora_jax.errors import ConfigError
from sora_jax.goodput import accounts, table

FLAGS = flags.FlagValues()
JSON = flags.DEFINE_bool("json", False, "print JSON", flag_values=FLAGS)


def main(argv: Sequence[str]) -> None:
    """Prints the accounts of the run that the first word names."""
    if len(argv) != 2:
        raise ConfigError("sora goodput needs the directory of one run")
    found = accounts(Path(argv[1]))
    if JSON.value:
        print(json.dumps({stage: dataclasses.asdict(each) for stage, each in found.items()}))
    else:
        print("\n\n".join(table(stage, each) for stage, each in found.items()))


if __name__ == "__main__":
    run(sys.modules[__name__], sys.argv[1:])
