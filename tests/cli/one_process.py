"""Command lines in one process, one after another: importing jax takes longer than most of them."""

import json
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

# A module is executed anew as `python -m` does, and so has flags of its own every time.
SCRIPT = """
import contextlib, io, json, runpy, sys
from sora_jax.cli.main import main

said = []
for module, arguments in json.loads(sys.argv[1]):
    sys.argv = ["sora", *arguments]
    output, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(errors):
        try:
            if module is None:
                main()
            else:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            code = None
        except SystemExit as end:
            code = end.code or 0
    said.append((code, output.getvalue(), errors.getvalue()))
print(json.dumps(said))
"""


class Said(NamedTuple):
    """Exit code, None where it returned, and what it printed."""

    code: int | None
    output: str
    errors: str


def in_one_process(calls: Sequence[tuple[str | None, Sequence[str]]]) -> list[Said]:
    """What each call of a command's module, or of `sora` by None, with its arguments says. An
    exception that would show a traceback fails all of them."""
    command = [sys.executable, "-c", SCRIPT, json.dumps(calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return [Said(*said) for said in json.loads(done.stdout.splitlines()[-1])]
