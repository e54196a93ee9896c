"""What checkpoints cost: a save while the demo's steps go on, and a restore in time and memory.

    python -m benchmarks.checkpointing

Saves: rounds of 20 steps without a save, with one, and with one by Orbax's own settings take turns,
in another order each time; what is ours in a save is timed on its own. On CPU its threads have the
cores that the step computes on, which on a TPU host it does not. Restores: of a state of 2 GB, each
in fresh processes, of which the growth of the peak memory is measured; and of 64 MB, which tells
what of it is the same for any state. Prints the figures and writes them to
benchmarks/results/checkpointing.json.
"""

import datetime
import functools
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from benchmarks.demo_step import BUCKET, clips
from sora_jax.checkpoints import Checkpoints, state_checksums
from sora_jax.config import fingerprint, load_experiment, to_dict
from sora_jax.networks import make_generator, make_vae
from sora_jax.programs import abstract_batch, step_of
from sora_jax.sharding.mesh import make_mesh
from sora_jax.sharding.rules import replicated, rows_sharding
from sora_jax.train.diffusion_loss import diffusion_loss
from sora_jax.train.programs import Update
from sora_jax.train.state import init_state
from sora_jax.train.vae_losses import vae_loss

ROUNDS = 12
STEPS = 20
MEGABYTES = (64, 2_000)
RESULT = Path(__file__).parent / "results" / "checkpointing.json"
EXPERIMENT = load_experiment("demo")
DEFAULTS = ocp.PyTreeCheckpointHandler


def vae_parts(mesh: Any) -> tuple[Any, Any, Any]:
    """The autoencoder's step, state and batch."""
    stage = EXPERIMENT.vae_stage
    step = step_of(stage.training, vae_loss(stage.loss))
    make = functools.partial(make_vae, EXPERIMENT)
    batch = clips(EXPERIMENT, stage.pixel_frames // BUCKET.frames)
    state = init_state(make, step.optimizer, jax.random.key(0), mesh)
    return step, state, jax.device_put(batch, rows_sharding(mesh))


def dit_parts(mesh: Any) -> tuple[Any, Any, Any]:
    """The transformer's."""
    stage = EXPERIMENT.dit_stage
    step = step_of(stage.training, diffusion_loss(stage.diffusion))
    make = functools.partial(make_generator, EXPERIMENT)
    names = [bucket.name for bucket in EXPERIMENT.data.buckets]
    shape_class = EXPERIMENT.classes()[names.index(BUCKET.name)]
    abstract = abstract_batch(EXPERIMENT, shape_class, mesh)
    batch = jax.tree.map(lambda each: jnp.ones(each.shape, each.dtype), abstract)
    state = init_state(make, step.optimizer, jax.random.key(0), mesh)
    return step, state, jax.device_put(batch, rows_sharding(mesh))


def save_costs(parts: Callable[[Any], tuple[Any, Any, Any]]) -> dict[str, Any]:
    """Times of rounds, and of the parts of a save."""
    mesh = make_mesh(EXPERIMENT.mesh)
    kinds = ("no save", "save", "save by Orbax's settings")
    seconds: dict[str, list[float]] = {kind: [] for kind in kinds}
    cpu: dict[str, list[float]] = {kind: [] for kind in kinds}
    blocked: dict[str, list[float]] = {"checksums": [], **{kind: [] for kind in kinds[1:]}}
    meta = {"fingerprint": fingerprint(EXPERIMENT), "config": to_dict(EXPERIMENT)}
    with tempfile.TemporaryDirectory() as directory, jax.set_mesh(mesh):
        step, state, batch = parts(mesh)
        key = jax.device_put(jax.random.key(1), replicated(mesh))
        update = Update(step, state, [batch], key)
        saving = {"save": Checkpoints(Path(directory, "ours"))}
        with mock.patch("sora_jax.checkpoints.array_handler", DEFAULTS):
            saving[kinds[2]] = Checkpoints(Path(directory, "defaults"))

        def a_round(kind: str) -> None:
            nonlocal state
            metrics: Any = None
            for number in range(STEPS):
                waiting, (state, metrics) = metrics, update(state, [batch], key)
                jax.tree.map(np.asarray, waiting)  # as the loop does, a step later
                if number == 0 and kind in saving:
                    jax.tree.map(np.asarray, metrics)
                    started = time.perf_counter()
                    saving[kind].save(state, meta)
                    blocked[kind].append(time.perf_counter() - started)
            jax.block_until_ready(state)

        orders = itertools.cycle(itertools.permutations(kinds))
        for number, order in zip(range(ROUNDS + 1), orders, strict=False):
            for kind in order:
                wall, spent = time.perf_counter(), time.process_time()
                a_round(kind)
                wall, spent = time.perf_counter() - wall, time.process_time() - spent
                for each in saving.values():
                    each.wait()
                if number:  # the first warms up
                    seconds[kind].append(wall)
                    cpu[kind].append(spent)
            started = time.perf_counter()
            state_checksums(state)
            blocked["checksums"].append(time.perf_counter() - started)
        for each in saving.values():
            each.close()
    leaves = jax.tree.leaves(state)
    size = f"{len(leaves)} arrays, {sum(leaf.nbytes for leaf in leaves) / 1e6:.1f} MB"
    return {"state": size, **summary(seconds, cpu, blocked)}


def summary(
    seconds: dict[str, list[float]], cpu: dict[str, list[float]], blocked: dict[str, list[float]]
) -> dict[str, Any]:
    """Medians, and ratios to rounds without a save."""
    none = seconds["no save"]
    medians = {kind: statistics.median(each) for kind, each in seconds.items()}
    pairs = {
        kind: [s / n for s, n in zip(each, none, strict=True)] for kind, each in seconds.items()
    }
    return {
        "milliseconds_a_step": {k: round(1e3 * m / STEPS, 1) for k, m in medians.items()},
        "ratio_of_medians": {k: round(m / medians["no save"], 4) for k, m in medians.items()},
        "median_ratio_in_a_turn": {k: round(statistics.median(r), 4) for k, r in pairs.items()},
        "ratio_of_fastest": {k: round(min(each) / min(none), 4) for k, each in seconds.items()},
        "cpu_milliseconds_a_round": {k: round(1e3 * statistics.median(v)) for k, v in cpu.items()},
        "blocked_milliseconds": {
            k: round(1e3 * statistics.median(v[1:]), 1) for k, v in blocked.items()
        },
    }


def in_processes(
    directory: Path, megabytes: int, part: str, processes: int, devices: int
) -> list[dict[str, Any]]:
    """What benchmarks.restoring says, of each process."""
    command = [sys.executable, "-m", "benchmarks.restoring", str(directory), part, str(megabytes)]
    if processes > 1:
        counts = ("--processes", str(processes), "--devices_per_process", str(devices))
        command = [sys.executable, "-m", "launch.local", *counts, "--", *command]
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(devices)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    lines = [line.partition("{") for line in ended.stdout.splitlines() if '{"' in line]
    return [json.loads(brace + rest) for _, brace, rest in lines]


def restore_costs() -> dict[str, Any]:
    """Of all and of the average alone, over one device, eight, and two processes."""
    found: dict[str, Any] = {}
    for megabytes, (processes, devices) in itertools.product(MEGABYTES, ((1, 1), (1, 8), (2, 2))):
        name = f"{megabytes} MB, {processes} processes of {devices} devices"
        with tempfile.TemporaryDirectory() as directory:
            place = Path(directory, "run")
            found[name] = {
                part: in_processes(place, megabytes, part, processes, devices)
                for part in ("save", "all", "ema")
            }
        print(name, json.dumps(found[name]), flush=True)
    return found


def main() -> None:
    """Measures, prints and writes."""
    loads = [os.getloadavg()[0]]
    restores = restore_costs()
    loads.append(os.getloadavg()[0])
    saves = {}
    for name, parts in {"transformer": dit_parts, "autoencoder": vae_parts}.items():
        saves[name] = save_costs(parts)
        print(name, json.dumps(saves[name], indent=2), flush=True)
        loads.append(os.getloadavg()[0])
    result = {
        "command": "python -m benchmarks.checkpointing",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores, shared with others: load {loads}",
        "versions": {"jax": jax.__version__, "orbax": ocp.__version__},
        "one_save_in_20_steps": saves,
        "restores": restores,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
