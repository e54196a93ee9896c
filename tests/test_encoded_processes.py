"""Two processes that share a mesh write the set of latents that one process writes."""

from pathlib import Path

import jax
import numpy as np
import pytest

from sora_jax.cli.data import build_world_set
from sora_jax.config import load_experiment
from sora_jax.data.sources import ClipSet
from sora_jax.encoded import encode_set
from sora_jax.networks import make_vae
from sora_jax.sharding.mesh import make_mesh
from tests.processes import in_processes
from tests.tiny import randomised

# Four devices, two of each process; a row lies on two of them.
TINY = (
    "vae.widths=(8,)",
    "vae.folds=((4,4),)",
    "mesh.fsdp=2",
    "mesh.context=2",
    "data.buckets=(Bucket(frames=5, height=32, width=32),)",
    "vae_stage.buckets=()",
    "data.shape_classes=(ShapeClass(rows=4, tokens=32),)",
)


def child(port: str, number: str, directory: str, order: str) -> None:
    """One of the processes: encodes the set there over the devices of all in that order."""
    jax.distributed.initialize(f"localhost:{port}", 2, int(number))
    encode(Path(directory), "latents", [jax.devices()[int(place)] for place in order])


def encode(directory: Path, output: str, devices: list[jax.Device]) -> None:
    experiment = load_experiment("demo", TINY)
    mesh = make_mesh(experiment.mesh, devices)
    vae = randomised(lambda rngs: make_vae(experiment, rngs))
    encode_set(experiment, ClipSet(directory / "set"), directory / output, mesh, vae)


@pytest.mark.slow
@pytest.mark.parametrize(
    "order", ["0123", pytest.param("0213", id="both processes hold every row")]
)
def test_two_processes_write_the_set_of_one(tmp_path: Path, order: str) -> None:
    experiment = load_experiment("demo", TINY)
    build_world_set(11, tmp_path / "set", experiment.data, experiment.world)
    in_processes(2, "tests.test_encoded_processes", str(tmp_path), order)
    encode(tmp_path, "alone", jax.devices()[:4])
    ours, theirs = ClipSet(tmp_path / "latents"), ClipSet(tmp_path / "alone")
    assert ours.manifest.latents == theirs.manifest.latents
    [name] = ours.manifest.shards
    files, expected = (
        [(entry.file, entry.records) for entry in each.manifest.shards[name]]
        for each in (ours, theirs)
    )
    assert files == expected
    [bucket] = experiment.data.buckets
    for index in range(11):
        one, other = ours.source(bucket)[index], theirs.source(bucket)[index]
        assert one.clip_id == other.clip_id
        for moment in ("mean", "log_variance"):
            values = (getattr(each, moment).astype(np.float32) for each in (one, other))
            # A unit of the last place of bfloat16, where sums differ.
            np.testing.assert_allclose(*values, atol=1e-5, rtol=2**-7)
