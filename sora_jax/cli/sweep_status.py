"""show what has become of the runs of a sweep.

    sora sweep status --queue sweeps/one/queue

A row a run: its state (planned, leased, running, done, diverged, failed; damaged), who trains it,
how far it is, its loss, held-out of one that is done and of its log before, and how long ago its
heart beat. Below it why runs failed, and files that are damaged.
"""

import sys
from collections.abc import Sequence

from absl import flags

from sora_jax.cli.main import run as run_command
from sora_jax.errors import ConfigError
from sora_jax.files import local_path
from sora_jax.scaling.queue import Queue
from sora_jax.scaling.status import status_lines, status_table

FLAGS = flags.FlagValues()
QUEUE = flags.DEFINE_string("queue", None, "directory of `sora sweep run`", flag_values=FLAGS)


def main(argv: Sequence[str]) -> None:
    """Prints the table, and changes nothing."""
    if len(argv) > 1 or QUEUE.value is None:
        raise ConfigError("sora sweep status needs --queue, and no words")
    entries = Queue(local_path(QUEUE.value)).look()
    print("\n".join([status_table(entries).text(), *status_lines(entries)]))


if __name__ == "__main__":
    run_command(sys.modules[__name__], sys.argv[1:])
