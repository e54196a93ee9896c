"""A run of the autoencoder that starts from another run's, of images or of video."""

import dataclasses
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from sora_jax.checkpoints import CheckpointError, named, unnamed
from sora_jax.config import fingerprint, to_text
from sora_jax.experiment import Experiment
from sora_jax.models.inflation import inflate
from sora_jax.models.judged_vae import JudgedVAE
from sora_jax.models.vae import VAEConfig
from sora_jax.networks import averaged_vae, experiment_of
from sora_jax.processes import is_first
from sora_jax.sharding.rules import parameter_shardings
from sora_jax.train.run import Run
from sora_jax.train.state import TrainState


def started_from(run: Run, experiment: Experiment, other: Path) -> Run:
    """The run with the averaged autoencoder of another run for its first state; inflated, where the
    other was trained on images alone. What judges it starts afresh, and so does the optimizer. A
    run that has a checkpoint goes on from that.

    Raises:
        CheckpointError: `other` is no run, or its autoencoder is not of the experiment's config.
    """
    theirs = experiment_of(other)
    wanted, found = (to_text(each.trained().vae).splitlines() for each in (experiment, theirs))
    if wanted != found:
        difference = next(line for line in found if line not in wanted)
        raise CheckpointError(
            f"cannot start from the autoencoder of {other}, which has {difference}: give both "
            "experiments the same vae"
        )

    def start() -> TrainState:
        vae, step = averaged_vae(theirs, other, run.mesh)
        images = step > 0 and _trains_on_images_alone(theirs)  # an import has been trained on video
        if images and not isinstance(experiment.vae, VAEConfig):
            raise CheckpointError(
                f"cannot start from {other}: it was trained on images alone, and an autoencoder of "
                "this kind is not inflated; train it on video too"
            )
        if images:
            vae = jax.jit(inflate, out_shardings=parameter_shardings(vae, run.mesh))(vae)
        what = "of images, inflated" if images else "of video"
        if is_first():
            print(f"{run.name}: starts from {other}, step {step}, {what}", flush=True)
        fresh, arrays = run.init(), named(vae)
        copies = {name: jnp.copy(array) for name, array in arrays.items()}  # the average is its own
        return dataclasses.replace(
            fresh, model=_with(fresh.model, arrays), ema=_with(fresh.ema, copies)
        )

    meta = {**run.meta, "started_from": fingerprint(theirs.trained())}
    return dataclasses.replace(run, init=start, meta=meta)


def _trains_on_images_alone(experiment: Experiment) -> bool:
    chosen = experiment.vae_stage.buckets
    buckets = [each for each in experiment.data.buckets if not chosen or each.name in chosen]
    return all(bucket.frames == 1 for bucket in buckets)


def _with(model: Any, arrays: dict[str, Any]) -> Any:
    """The model with these arrays for those of its autoencoder."""
    prefix = "vae." if isinstance(model, JudgedVAE) else ""
    return unnamed(named(model) | {f"{prefix}{n}": array for n, array in arrays.items()}, model)
