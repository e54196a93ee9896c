"""Two processes of two devices each come to the loss and gradients of one device."""

import dataclasses
import os
import pickle
import socket
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from tests.tiny import one_device_mesh
from tests.train.test_meshes import DIT, check_equal, updated

SHALLOW = dataclasses.replace(DIT, depth=1)

CHECKOUT = Path(__file__).resolve().parent.parent.parent
CHILD = "from tests.train import test_two_processes as t; import sys; t.child(*sys.argv[1:])"


def child(port: str, number: str, output: str, order: str, context: str) -> None:
    """One of the processes: a step on the mesh of all in that order, written out."""
    from sora_jax.sharding.mesh import MeshConfig, make_mesh

    jax.distributed.initialize(f"localhost:{port}", 2, int(number))
    devices = [jax.devices()[int(place)] for place in order]
    mesh = make_mesh(MeshConfig(replica=2, fsdp=1, context=2), devices)
    found = updated(SHALLOW, mesh, context=int(context))
    Path(output).write_bytes(pickle.dumps(found))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("order", "context"),
    [("0123", 2), pytest.param("0213", 1, id="rows of a process in two pieces")],
)
def test_two_processes_come_to_the_gradients_of_one_device(
    tmp_path: Path, order: str, context: int
) -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "XLA_FLAGS": "",
    }
    outputs = [tmp_path / str(number) for number in range(2)]
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD, port, str(number), str(output), order, str(context)],
            cwd=CHECKOUT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number, output in enumerate(outputs)
    ]
    for process in children:
        _, errors = process.communicate(timeout=300)
        assert process.returncode == 0, errors[-2000:]
    expected = updated(SHALLOW, one_device_mesh())
    for output in outputs:
        check_equal(pickle.loads(output.read_bytes()), expected)
