"""The autoencoder of another run or project, in the directory of a run that trains on it."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from sora_jax import config as configs
from sora_jax.checkpoints import CheckpointError, Checkpoints
from sora_jax.experiment import Experiment
from sora_jax.files import write_json
from sora_jax.models.judged_vae import JudgedVAE
from sora_jax.models.vae import VAE
from sora_jax.networks import experiment_of, load_vae
from sora_jax.processes import is_first, wait_for_all
from sora_jax.sharding.mesh import make_mesh
from sora_jax.sharding.rules import parameter_shardings
from sora_jax.train.state import TrainState

STATISTICS = "latents.json"


def write_autoencoder(
    stage: Path,
    experiment: Experiment,
    vae: VAE,
    statistics: Mapping[str, Any],
    source: Path,
    mesh: Mesh,
) -> None:
    """Writes the directory of a run's stage `vae`; its statistics last, so that they mean whole.

    `statistics`: step, mean and deviation, as `networks.measure_latents` writes them. All processes
    call it.
    """
    average = jax.tree.map(jnp.copy, vae)
    model, average = (
        JudgedVAE(each, None, None) if experiment.vae_stage.loss.is_judged else each
        for each in (vae, average)
    )
    # No optimizer's: what is trained further starts anew.
    step = jnp.asarray(statistics["step"], jnp.int32)
    state = TrainState(step=step, model=model, ema=average, opt_state=())
    state = jax.device_put(state, parameter_shardings(state, mesh))
    meta = {
        "stage": "vae",
        "fingerprint": configs.fingerprint(experiment.trained()),
        "experiment": configs.to_dict(experiment),
        "imported_from": str(source),
    }
    if is_first():
        stage.mkdir(parents=True, exist_ok=True)
    checkpoints = Checkpoints(stage / "checkpoints")
    checkpoints.save(state, meta)
    checkpoints.close()
    if is_first():
        write_json(stage / STATISTICS, statistics)
    wait_for_all("autoencoder written")


def share_autoencoder(source: Path, directory: Path, experiment: Experiment) -> None:
    """Gives the run in `directory` a copy of the autoencoder of the run `source`, unless it has it.
    All processes call it.

    Raises:
        CheckpointError: `source` has no trained autoencoder of the experiment's config.
    """
    stage = directory / "vae"
    has_it = (stage / STATISTICS).exists()
    wait_for_all("autoencoder looked for")
    if has_it:
        return
    theirs = experiment_of(source)
    if theirs.vae.trained() != experiment.vae.trained():
        raise CheckpointError(
            f"the autoencoder of {source} is {theirs.vae}, and {experiment.name} is planned for "
            f"{experiment.vae}: name the run whose latents are trained on"
        )
    mesh = make_mesh(experiment.mesh)
    vae, _, _ = load_vae(theirs, source, mesh)
    if is_first():
        shutil.rmtree(stage, ignore_errors=True)  # what a kill left of the same
    wait_for_all("room for the autoencoder")
    statistics = json.loads((source / "vae" / STATISTICS).read_text())
    write_autoencoder(stage, experiment, vae, statistics, source, mesh)
