"""Two processes of two devices each come to the loss and gradients of one device."""

import dataclasses
import pickle
from pathlib import Path

import jax
import pytest

from tests.processes import in_processes
from tests.tiny import one_device_mesh
from tests.train.test_meshes import DIT, check_equal, updated

SHALLOW = dataclasses.replace(DIT, depth=1)


def child(port: str, number: str, directory: str, order: str, context: str) -> None:
    """One of the processes: a step on the mesh of all in that order, written out."""
    from sora_jax.sharding.mesh import MeshConfig, make_mesh

    jax.distributed.initialize(f"localhost:{port}", 2, int(number))
    devices = [jax.devices()[int(place)] for place in order]
    mesh = make_mesh(MeshConfig(replica=2, fsdp=1, context=2), devices)
    found = updated(SHALLOW, mesh, context=int(context))
    (Path(directory) / number).write_bytes(pickle.dumps(found))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "context"),
    [("0123", 2), pytest.param("0213", 1, id="rows of a process in two pieces")],
)
def test_two_processes_come_to_the_gradients_of_one_device(
    tmp_path: Path, order: str, context: int
) -> None:
    in_processes(2, "tests.train.test_two_processes", str(tmp_path), order, str(context))
    expected = updated(SHALLOW, one_device_mesh())
    for number in range(2):
        check_equal(pickle.loads((tmp_path / str(number)).read_bytes()), expected)
