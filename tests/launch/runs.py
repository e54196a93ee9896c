"""Commands of launch as tests run them: words in, exit code and what was said out."""

import os
import subprocess
import sys
from pathlib import Path

from tests.processes import CHECKOUT

SCHEMA = CHECKOUT.parent / "shared" / "schemas" / "jobset.x-k8s.io_jobsets.yaml"
GOLDEN = CHECKOUT / "tests" / "golden" / "launch"


def launch(module: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m launch.<module>`."""
    return subprocess.run(
        [sys.executable, "-m", f"launch.{module}", *words],
        cwd=CHECKOUT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def stand_in(folder: Path, name: str, code: int = 0) -> str:
    """A program `name` that writes down its words and input; returns a PATH with it first."""
    script = folder / name
    script.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >> "{folder}/words"\n'
        f'[ -t 0 ] || cat >> "{folder}/input"\nexit {code}\n'
    )
    script.chmod(0o755)
    return f"{folder}{os.pathsep}{os.environ['PATH']}"


def check_golden(found: str, name: str, update: bool) -> None:
    """Holds text against a file of tests/golden/launch, or writes that."""
    path = GOLDEN / name
    if update:
        path.write_text(found, encoding="utf-8")
    assert found == path.read_text(encoding="utf-8"), f"pytest --update-golden rewrites {path}"
