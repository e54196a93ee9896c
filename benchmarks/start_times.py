"""How long a run waits for its programs: compiled, taken from jax's cache, or made beforehand.

    python -m benchmarks.start_times

The demo's transformer, every start in a process of its own. Prints medians and writes them to
benchmarks/results/start_times.json.
"""

import datetime
import functools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax

from sora_jax.config import load_experiment
from sora_jax.networks import make_generator
from sora_jax.programs import abstract_batch, abstract_key, lowered_step, step_of
from sora_jax.sharding.mesh import make_mesh
from sora_jax.train.compiler_options import compile_here
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.executables import Executables, keep_on_disk
from sora_jax.train.programs import Update
from sora_jax.train.state import abstract_state

TURNS = 3
RESULT = Path(__file__).parent / "results" / "start_times.json"


def start(directory: str) -> float:
    """Seconds until the programs are there; those in the directory are loaded."""
    keep_on_disk()
    experiment = load_experiment("demo")
    mesh, stage = make_mesh(experiment.mesh), experiment.dit_stage
    classes = experiment.data.shape_classes
    step = step_of(stage.training, diffusion_loss(stage.diffusion), classes)
    make = functools.partial(make_generator, experiment)
    began = time.perf_counter()
    with jax.set_mesh(mesh):
        state = abstract_state(make, step.optimizer, mesh)
        batches = [abstract_batch(experiment, each, mesh) for each in classes]
        made = Executables(directory, list(mesh.devices.flat))
        update = Update(step, state, batches, abstract_key(mesh), made)
    seconds = time.perf_counter() - began
    assert made.loaded in (0, update.count)
    return seconds


def make(directory: str) -> None:
    """Fills the directory with executables."""
    experiment = load_experiment("demo")
    mesh = make_mesh(experiment.mesh)
    made = Executables(directory, list(mesh.devices.flat))
    for shape_class in experiment.data.shape_classes:
        [(lowered, _)], _ = lowered_step(experiment, shape_class, mesh)
        made.save(lowered, compile_here(lowered))


def in_a_process(call: str, directory: Path, cache: Path) -> float:
    """What a function of this file returns, called on the directory in a fresh process."""
    code = f"from benchmarks import start_times as s; print(s.{call}({str(directory)!r}) or 0)"
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": str(cache)}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def main() -> None:
    """Measures, prints and writes."""
    seconds: dict[str, list[float]] = {"compiled": [], "from_cache": [], "made_beforehand": []}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        empty, full = folder / "empty", folder / "full"
        empty.mkdir()
        full.mkdir()
        in_a_process("make", full, folder / "unread")
        for turn in range(TURNS):
            cache = folder / f"cache{turn}"
            seconds["compiled"].append(in_a_process("start", empty, cache))
            seconds["from_cache"].append(in_a_process("start", empty, cache))
            seconds["made_beforehand"].append(in_a_process("start", full, folder / f"none{turn}"))
        kept = sum(path.stat().st_size for path in full.iterdir())
    result = {
        "command": "python -m benchmarks.start_times",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores",
        "versions": {"jax": jax.__version__, "python": sys.version.split()[0]},
        "programs": len(load_experiment("demo").data.shape_classes),
        "seconds": {kind: round(statistics.median(each), 2) for kind, each in seconds.items()},
        "all_seconds": {kind: [round(s, 2) for s in each] for kind, each in seconds.items()},
        "executables_mib": round(kept / 2**20, 1),
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
