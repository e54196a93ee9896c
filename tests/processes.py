"""Processes of two CPU devices each, which find each other by jax.distributed."""

import os
import socket
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parent.parent


def in_processes(count: int, module: str, *arguments: str) -> None:
    """Calls `child(port, number, *arguments)` of a test module in each; fails with what the first
    that ends badly said.

    `child` is to begin with jax.distributed.initialize(f"localhost:{port}", count, int(number)).
    """
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "2",
        "JAX_CPU_COLLECTIVES_IMPLEMENTATION": "gloo",
        "XLA_FLAGS": "",
    }
    code = f"import {module} as test; import sys; test.child(*sys.argv[1:])"
    children = [
        subprocess.Popen(
            [sys.executable, "-c", code, port, str(number), *arguments],
            cwd=CHECKOUT,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for number in range(count)
    ]
    try:
        for process in children:
            _, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors[-2000:]
    except subprocess.TimeoutExpired as hanging:
        for process in children:
            process.kill()
        said = "\n".join(process.communicate()[1][-2000:] for process in children)
        raise AssertionError(f"processes hang, and have said:\n{said}") from hanging
    finally:  # one that waits for another would wait for ever
        for process in children:
            process.kill()
