"""Autoencoders of other projects as runs of ours, that a transformer is trained on as on any."""

import dataclasses
import os
import shutil
from pathlib import Path

import jax
import numpy as np

from sora_jax import config as configs
from sora_jax.errors import ConfigError, UserError
from sora_jax.experiment import Experiment
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.shared_vae import write_autoencoder
from sora_jax.weights.wan_vae import read_wan_vae


def import_wan_vae(source: Path, directory: Path, experiment: Experiment) -> str:
    """Makes a run of an experiment whose autoencoder is that of Wan 2.1 in a folder, at step 0, and
    whose latents are normalised as Wan's are; whole or not at all. Returns a line about it.

    `--stage dit` goes on in the run. To train the autoencoder further, another run starts from this
    one (`--stage vae --start`).

    Raises:
        ConfigError: the experiment is for another autoencoder.
        UserError: the weights are of another model, partial or damaged, or `directory` is there
            already or cannot be written.
    """
    if directory.exists():
        raise UserError(f"{directory} is there already: choose another --output, or remove it")
    vae, statistics = read_wan_vae(source)
    wanted = experiment.vae.trained()
    if dataclasses.replace(wanted, compute="float32") != vae.config:
        raise ConfigError(
            f"experiment {experiment.name} is for another autoencoder than {source} has: give it "
            f"vae={vae.config}"
        )
    latents = {
        "step": 0,
        "mean": np.asarray(statistics.mean, float).tolist(),
        "deviation": np.asarray(statistics.deviation, float).tolist(),
    }
    partial = directory.with_name(f".{directory.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        mesh = make_mesh(MeshConfig())
        write_autoencoder(partial / "vae", experiment, vae, latents, source, mesh)
        configs.save(experiment, partial / "config.json")
        os.rename(partial, directory)
    except (OSError, ValueError) as error:  # the latter is TensorStore's of a full disk
        reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
        raise UserError(f"cannot make a run in {directory}: {reason}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    count = sum(leaf.size for leaf in jax.tree.leaves(vae))
    return f"{directory}: the autoencoder of {source}, {count:,} parameters, for --stage dit"
