"""What made samples, apart from what was asked for: checkpoint, settings of the sampler, code."""

import hashlib
import json
from typing import Any

from sora_jax import __version__
from sora_jax.checkpoints import named
from sora_jax.config import to_dict
from sora_jax.networks import LoadedRun
from sora_jax.processes import code_id
from sora_jax.sample.denoise import Models
from sora_jax.sample.generate import Sampler
from sora_jax.sharding.checksums import checksums


def provenance_of(run: LoadedRun, sampler: Sampler) -> dict[str, Any]:
    """As JSON data, for `sample.video_io.write_samples`. Equal on every mesh."""
    return {
        "checkpoint": {
            "run": run.directory.resolve().name,
            "experiment": run.experiment.name,
            "step": run.step,
            "parameters": run.parameters,
            "weights": weights_id(sampler.models),
            "fingerprints": run.fingerprints,
        },
        "sampling": to_dict(sampler.config),
        "code": f"sora_jax {__version__}, {code_id()}",
    }


def weights_id(models: Models) -> str:
    """12 hexadecimal digits over all numbers of the networks: a fingerprint of a config is the same
    for runs on other data."""
    found = json.dumps(checksums(named(models)), sort_keys=True)
    return hashlib.sha256(found.encode()).hexdigest()[:12]
