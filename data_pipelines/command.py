"""Runs a pipeline from the command line: a user's mistake is one sentence, not a traceback."""

import sys
from collections.abc import Callable, Sequence

from sora_jax.errors import UserError


def run(main: Callable[[Sequence[str]], None], arguments: Sequence[str]) -> None:
    """Calls main; a UserError ends as its sentence and with its exit code."""
    try:
        main(arguments)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
