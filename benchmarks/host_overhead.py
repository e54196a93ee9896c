"""Share of the training loop's wall time that goes into the compiled step, on the demo's model.

    python -m benchmarks.host_overhead

Times the loop as it is, reading, laying out, logging and all, over whole blocks of the schedule,
and the same programs on batches that already wait on the device, over as many steps; they take
turns. Prints medians and writes them to benchmarks/results/host_overhead.json.
"""

import dataclasses
import datetime
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax

from sora_jax.assemble import dit_run
from sora_jax.cli.data import build_world_set
from sora_jax.cli.train import train_stage
from sora_jax.config import load_experiment
from sora_jax.data.schedule import BLOCK_STEPS
from sora_jax.data.sources import ClipSet
from sora_jax.run_directory import open_directory
from sora_jax.train.loop import train
from sora_jax.train.programs import Update
from sora_jax.train.run import Run

TURNS = 4
CLIPS = 1_000
RESULT = Path(__file__).parent / "results" / "host_overhead.json"


def small_run(directory: Path) -> Run:
    """The demo's transformer on a small set, whose autoencoder is hardly trained."""
    last = (TURNS + 1) * BLOCK_STEPS
    experiment = load_experiment(
        "demo", ("vae_stage.training.steps=2", f"dit_stage.training.steps={last}")
    )
    build_world_set(CLIPS, directory / "set", experiment.data, experiment.world)
    clips = ClipSet(directory / "set")
    open_directory(experiment, clips, directory / "run")
    train_stage(experiment, clips, directory / "run", "vae")
    run = dit_run(experiment, clips, directory / "run")
    config = dataclasses.replace(run.config, evaluate_every=BLOCK_STEPS, save_every=last)
    return dataclasses.replace(run, config=config)


def measured(run: Run) -> dict[str, list[float]]:
    """Seconds of each turn, of the loop and of its programs alone."""
    batches = [run.prepare(next(run.data)).batch for _ in range(BLOCK_STEPS)]
    run.data.restore({**run.data.state(), "step": 0})
    with jax.set_mesh(run.mesh):
        update = Update(run.step, run.abstract(), run.batches, run.key)
        state = run.init()
    seconds: dict[str, list[float]] = {"loop": [], "programs": []}
    ended = 0.0

    def evaluator(trained: Any, step: int, writer: Any) -> None:
        """Ends the loop's turn, has the programs take theirs, and starts the loop's clock."""
        nonlocal state, ended
        jax.block_until_ready(trained)
        if step > BLOCK_STEPS:  # the first block warms up
            seconds["loop"].append(time.perf_counter() - ended)
            started = time.perf_counter()
            for batch in batches:
                state, _ = update(state, [batch], run.key)
            jax.block_until_ready(state)
            seconds["programs"].append(time.perf_counter() - started)
        ended = time.perf_counter()

    train(dataclasses.replace(run, evaluators=[evaluator]))
    return seconds


def main() -> None:
    """Measures, prints and writes."""
    with tempfile.TemporaryDirectory() as directory:
        seconds = measured(small_run(Path(directory)))
    loop, programs = (1e3 * statistics.median(s) / BLOCK_STEPS for s in seconds.values())
    shares = [p / s for s, p in zip(*seconds.values(), strict=True)]
    result = {
        "command": "python -m benchmarks.host_overhead",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores",
        "versions": {"jax": jax.__version__, "python": sys.version.split()[0]},
        "milliseconds_a_step": {"loop": round(loop, 2), "programs": round(programs, 2)},
        "share_in_programs": round(statistics.median(shares), 4),
        "shares": [round(share, 4) for share in shares],
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
