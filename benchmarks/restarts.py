"""A soak: a run of two processes is stopped at random moments, started again, and compared.

    python -m benchmarks.restarts --restarts 200 --directory /tmp/soak

One process of the run is killed (SIGKILL), or the run is asked to stop (SIGTERM), while it starts,
trains, or saves; then the same command is given again, until the run is done. It must end with the
parameters, moments, average and position of a run that nothing stopped, bit for bit, and with its
log, line by line. Runs follow each other until so many restarts were made. Prints what was done and
writes benchmarks/results/restarts.json.
"""

import argparse
import collections
import contextlib
import datetime
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from benchmarks import quick_compiling
from sora_jax.errors import RESTARTABLE

CHECKOUT = Path(__file__).resolve().parent.parent
EXPERIMENT = Path(__file__).parent / "tiny_run.py"
RESULT = Path(__file__).parent / "results" / "restarts.json"
# Values of a log's line that follow from the machine, not from the run.
OF_THE_MACHINE = ("seconds/", "memory/", "mfu", "hfu", "model_tflops", "steps_per", "tokens_per")
LIMIT_SECONDS = 600  # for anything to come


def command(
    directory: Path, data: Path, stage: str, processes: int = 2, devices: int = 1, *flags: str
) -> list[str]:
    """What trains a stage of the tiny run by several processes."""
    launch = [sys.executable, "-m", "launch.local", f"--processes={processes}"]
    train = ["--", "sora", "train", f"--experiment={EXPERIMENT}", f"--data={data}"]
    return [
        *launch,
        f"--devices_per_process={devices}",
        *train,
        f"--workdir={directory}",
        f"--stage={stage}",
        *flags,
    ]


def make_set(directory: Path, seed: int = 0) -> Path:
    """A set of procedural clips for the tiny run, from a scene's seed on."""
    from sora_jax.cli.data import build_world_set
    from sora_jax.config import load_experiment

    experiment = load_experiment(str(EXPERIMENT))
    build_world_set(24, directory, experiment.data, experiment.world, seed)
    return directory


@contextlib.contextmanager
def started(words: Sequence[str], output: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A command under way, its output added to a file; killed if it is left running."""
    with output.open("ab") as file:
        environment = os.environ | {"XLA_FLAGS": quick_compiling.XLA_FLAGS}
        run = subprocess.Popen(
            words, cwd=CHECKOUT, env=environment, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        yield run
    finally:
        if run.poll() is None:
            run.kill()
            run.wait()


def finish(words: Sequence[str], output: Path) -> int:
    """Runs a command to its end; returns its exit code."""
    with started(words, output) as run:
        return run.wait(LIMIT_SECONDS)


def disturb(
    words: Sequence[str], output: Path, kind: signal.Signals, moment: "Moment", victim: int
) -> int:
    """Starts a run, and stops it at a moment unless it ends before: SIGKILL goes to the process of
    the number `victim`, SIGTERM to that one alone too, as a pod's eviction does. Returns the exit
    code of the launch."""
    with started(words, output) as run:
        while run.poll() is None and not moment.has_come():
            time.sleep(0.002)
        if run.poll() is None:
            with contextlib.suppress(ProcessLookupError, IndexError):
                os.kill(children(run.pid)[victim], kind)
        return run.wait(LIMIT_SECONDS)


def children(pid: int) -> list[int]:
    """Processes that a launch has started, in the order of their numbers."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


class Moment:
    """So many seconds after a run's first step of this start, or in the middle of a save."""

    def __init__(self, stage: Path, seconds: float, saving: bool = False, starting: bool = False):
        self._stage, self._seconds, self._saving = stage, seconds, saving
        self._begin = time.monotonic() if starting else None
        self._lines = len(events(stage))

    def has_come(self) -> bool:
        if self._begin is None:
            if "compile_end" in events(self._stage)[self._lines :]:
                self._begin = time.monotonic()
            return False
        if time.monotonic() - self._begin < self._seconds:
            return False
        return not self._saving or any((self._stage / "checkpoints").glob("*tmp*"))


def events(stage: Path) -> list[str]:
    """Names in a stage's log of events."""
    path = stage / "events.jsonl"
    text = path.read_text() if path.exists() else ""
    return [json.loads(line)["event"] for line in text.splitlines() if line.endswith("}")]


def log(stage: Path) -> list[dict[str, Any]]:
    """The lines of a stage's log, without what follows from the machine."""
    lines = [json.loads(line) for line in (stage / "metrics.jsonl").read_text().splitlines()]
    return [
        {name: value for name, value in line.items() if not name.startswith(OF_THE_MACHINE)}
        for line in lines
    ]


def saved(stage: Path) -> dict[str, Any]:
    """All that the newest checkpoint of a stage holds, by name."""
    step = max(int(path.name) for path in (stage / "checkpoints").iterdir() if path.name.isdigit())
    directory, found = stage / "checkpoints" / str(step), {}
    handler = ocp.PyTreeCheckpointHandler()
    for item in ("state", "ema"):
        as_numpy = {
            name: ocp.RestoreArgs(restore_type=np.ndarray)
            for name in dict(handler.metadata(directory / item))
        }
        arguments = ocp.args.PyTreeRestore(restore_args=as_numpy)
        for name, array in handler.restore(directory / item, args=arguments).items():
            found[f"{item}.{name}"] = array
    meta = json.loads((directory / "meta" / "metadata").read_text())
    return found | {name: meta[name] for name in ("position", "window", "guard", "checksums")}


def differences(stage: Path, other: Path) -> list[str]:
    """What two runs of a stage do not have in common, in words."""
    ours, theirs = saved(stage), saved(other)
    names = [
        name
        for name in sorted(ours.keys() | theirs.keys())
        if name not in ours
        or name not in theirs
        or not np.array_equal(np.asarray(ours[name]), np.asarray(theirs[name]))
    ]
    return names + ([] if log(stage) == log(other) else ["the log"])


def main() -> None:
    """Stops and starts runs; exits with 1 if one does not end as if nothing had happened."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--restarts", type=int, default=200)
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    draw = random.Random(chosen.seed)
    chosen.directory.mkdir(parents=True, exist_ok=True)
    output, data = chosen.directory / "output.txt", chosen.directory / "set"
    if not data.exists():
        make_set(data)
    whole = chosen.directory / "whole"
    assert finish(command(whole, data, "vae"), output) == 0, output.read_text()
    counts: collections.Counter[str] = collections.Counter()
    start, different = time.monotonic(), []
    while sum(counts.values()) < chosen.restarts:
        run = chosen.directory / f"run_{sum(counts.values())}"
        code = None
        while code != 0:
            kind = draw.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM])
            where = draw.choice(["starting", "training", "saving"])
            seconds = draw.uniform(0, 6) if where == "starting" else draw.uniform(0, 1)
            moment = Moment(run / "vae", seconds, where == "saving", where == "starting")
            code = disturb(command(run, data, "vae"), output, kind, moment, draw.randrange(2))
            if code != 0:
                counts[f"{kind.name} {where}"] += 1
            assert code in (0, RESTARTABLE) or code > 128, output.read_text()[-4000:]
            print(
                f"{sum(counts.values())}: {kind.name} {where} {seconds:.2f} s: {code}", flush=True
            )
        different += differences(run / "vae", whole / "vae")
    result = {
        "command": f"python -m benchmarks.restarts --restarts {chosen.restarts}",
        "date": datetime.date.today().isoformat(),
        "cores": os.cpu_count(),
        "restarts": sum(counts.values()),
        "by_kind": dict(sorted(counts.items())),
        "runs": len(list(chosen.directory.glob("run_*"))),
        "minutes": round((time.monotonic() - start) / 60, 1),
        "different": different,
    }
    print(json.dumps(result, indent=2))
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
