"""A sweep of real runs that take seconds: a set, an autoencoder, latents and a plan."""

import dataclasses
from pathlib import Path

from sora_jax.cli.data import build_world_set
from sora_jax.cli.train import train_stage
from sora_jax.config import fingerprint, load_experiment, to_dict
from sora_jax.data.mixture import Clips, open_clips
from sora_jax.encoded import encode_set
from sora_jax.experiment import Experiment
from sora_jax.networks import load_vae
from sora_jax.run_directory import open_directory
from sora_jax.scaling.plan import PlannedRun, run_id
from sora_jax.sharding.mesh import make_mesh
from sora_jax.work import training_flops, training_tokens

BASE: Experiment = load_experiment(
    "sweep",
    [
        "vae_stage.training.steps=2",
        "vae_stage.pixel_frames=80",  # rows that 8 devices divide
        "dit.heads=1",
        "dit.width=16",
        "dit.depth=1",
        "dit_stage.training.optimizer.warmup_steps=2",
        "dit_stage.training.optimizer.decay_share=0.5",
        "dit_stage.training.max_skips=3",
        "dit_stage.training.log_every=2",
        "dit_stage.training.save_every=4",
        "dit_stage.training.retention.every_steps=4",
        "evaluation.prompts=4",
    ],
)


def planned(
    clips: Clips, steps: int, seed: int = 0, rate: float = 3e-3, **changed: object
) -> PlannedRun:
    """A run of so many steps; it meets no budget but its own."""
    training = BASE.dit_stage.training
    optimizer = dataclasses.replace(training.optimizer, peak_rate=rate)
    training = dataclasses.replace(training, steps=steps, optimizer=optimizer)
    stage = dataclasses.replace(BASE.dit_stage, training=training)
    made = dataclasses.replace(BASE, dit_stage=stage, seed=seed)
    mark, flops = fingerprint(made.trained()), training_flops(made, steps)
    run, tokens = run_id(mark, "code", clips.id, seed), training_tokens(made, steps)
    fields = {
        "run": run,
        "cluster": run,
        "budget": float(flops),
        "flops": flops,
        "parameters": 27_616,
        "parameters_without_embedding": 20_000,
        "width": made.dit.width,
        "depth": made.dit.depth,
        "heads": made.dit.heads,
        "steps": steps,
        "tokens": tokens,
        "batch_tokens": tokens / steps,
        "peak_rate": training.optimizer.peak_rate,
        "warmup_steps": training.optimizer.warmup_steps,
        "rule": "fixed",
        "parametrisation": "standard",
        "seed": seed,
        "memory_bytes": 1,
        "slice": "cpu-2",
        "hours": 0.01,
        "cost": 0.0,
        "code": "code",
        "data": clips.id,
        "fingerprint": mark,
        "experiment": to_dict(made),
    }
    return PlannedRun(**{**fields, **changed})  # type: ignore[arg-type]


def prepare(root: Path) -> Clips:
    """The run `vae` and the sets `clips` and `latents`, which is returned, in a directory."""
    build_world_set(32, root / "clips", BASE.data, BASE.world)
    clips = open_clips([str(root / "clips")], BASE.data)
    open_directory(BASE, clips, root / "vae")
    train_stage(BASE, clips, root / "vae", "vae")
    mesh = make_mesh(BASE.mesh)
    vae, _, _ = load_vae(BASE, root / "vae", mesh)
    encode_set(BASE, clips, root / "latents", mesh, vae)
    return open_clips([str(root / "latents")], BASE.data)


def words(root: Path, queue: Path, *flags: str) -> list[str]:
    """Of the command that trains the plan, behind `sora sweep run`."""
    places = {"plan": root / "plan.json", "data": root / "latents", "vae": root / "vae"}
    return [f"--queue={queue}", *(f"--{name}={place}" for name, place in places.items()), *flags]
