"""The latents of a whole set, made once by a run's autoencoder and kept beside its transformer.

A small set is read many times, and much of the time of a short step would go into encoding the same
clips again. RUN/dit/latents holds one array a bucket, an item a record in the order of the set, and
made_by.json, written last, which says of what they are.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float

from sora_jax.config import ConfigError, fingerprint
from sora_jax.data.sources import ClipSet
from sora_jax.experiment import Experiment
from sora_jax.models.latents import LatentStatistics, encode_tokens
from sora_jax.models.vae import VAE
from sora_jax.sharding.mesh import mesh_for_rows
from sora_jax.sharding.rules import rows_sharding

LABEL = "made_by.json"


def encoded_set(
    experiment: Experiment,
    clips: ClipSet,
    directory: Path,
    mesh: Mesh,
    vae: VAE,
    statistics: LatentStatistics,
) -> dict[int, Float[np.ndarray, "records n c"]]:
    """Normalised latent patches of every filled bucket of `clips`, by index of the bucket.

    `directory` is the run's. Latents that another autoencoder, config or set left there are made
    anew.

    Raises:
        ConfigError: there are several processes, or the latents cannot be written.
        DataError: a clip cannot be read.
    """
    if jax.process_count() > 1:
        raise ConfigError("dit_stage.encode_once keeps latents on one machine: set it to False")
    kept = directory / "dit" / "latents"
    buckets = {i: experiment.data.buckets[i] for i in clips.filled_buckets(experiment.data)}
    made_by = {
        "experiment": fingerprint(experiment.trained()),
        "set": clips.manifest.id,
        "mean": np.asarray(statistics.mean).tolist(),  # another autoencoder has others
        "deviation": np.asarray(statistics.deviation).tolist(),
        "buckets": [bucket.name for bucket in buckets.values()],
    }
    if _label(kept) != made_by:
        encode = functools.partial(
            jax.jit(encode_tokens, static_argnames="patch"),
            vae,
            statistics,
            patch=experiment.dit.patch,
        )
        try:
            kept.mkdir(parents=True, exist_ok=True)
            (kept / LABEL).unlink(missing_ok=True)
            for i, bucket in buckets.items():
                np.save(kept / f"{bucket.name}.npy", _encoded(clips, i, experiment, encode, mesh))
            partial = kept / f"{LABEL}.partial"
            partial.write_text(json.dumps(made_by))
            partial.replace(kept / LABEL)
        except OSError as error:
            reason = error.strerror or error
            raise ConfigError(f"cannot keep latents in {kept}: {reason}") from error
    return {i: np.load(kept / f"{bucket.name}.npy") for i, bucket in buckets.items()}


def _label(kept: Path) -> Any:
    """What the latents there are of, or None if they are not whole."""
    return json.loads((kept / LABEL).read_text()) if (kept / LABEL).exists() else None


def _encoded(
    clips: ClipSet,
    bucket: int,
    experiment: Experiment,
    encode: Callable[[Array], Array],
    mesh: Mesh,
) -> Float[np.ndarray, "records n c"]:
    """Latents of every record of a bucket, in batches of its shape class, whose rows the mesh
    divides; the last batch is filled up with the last record."""
    source, its_class = clips.source(experiment.data.buckets[bucket]), experiment.classes()[bucket]
    rows, sharding = its_class.rows, rows_sharding(mesh_for_rows(mesh, its_class.context))
    parts = []
    for start in range(0, len(source), rows):
        indices = np.minimum(np.arange(start, start + rows), len(source) - 1)
        video = np.stack([source.clip(int(index))[1] for index in indices])
        part = np.asarray(encode(jax.device_put(video, sharding)))
        parts.append(part[: len(source) - start])
    return np.concatenate(parts)
