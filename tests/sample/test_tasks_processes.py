"""Two processes of two devices each make the clips of every task as one device does."""

from pathlib import Path

import jax
import numpy as np
import pytest

from sora_jax.processes import to_host
from sora_jax.sharding.mesh import MeshConfig
from tests.processes import in_processes


def made(devices: int, mesh: MeshConfig) -> dict[str, np.ndarray]:
    """Tokens of two clips of each task."""
    from tests.sample import test_tasks as tasks  # makes arrays

    config = tasks.SamplingConfig(steps=2, rows=2)
    times = tasks.TimesConfig(base_tokens=8)
    sampler = tasks.tiny_sampler([tasks.PROMPT], config, times, devices, mesh)
    requests = {name: task(tasks.PLAIN) for name, task in tasks.TASKS.items()}
    # 4 latent frames of 2 x 3 patches.
    return {
        name: to_host(sampler.tokens([request] * 2))[:, :24] for name, request in requests.items()
    }


def child(port: str, number: str, directory: str) -> None:
    jax.distributed.initialize(f"localhost:{port}", 2, int(number))
    np.savez(Path(directory) / f"{number}.npz", **made(4, MeshConfig(fsdp=2, context=2)))


@pytest.mark.slow
def test_two_processes_make_every_task_as_one_device_does(tmp_path: Path) -> None:
    in_processes(2, "tests.sample.test_tasks_processes", str(tmp_path))
    expected = made(1, MeshConfig())
    for number in range(2):
        with np.load(tmp_path / f"{number}.npz") as found:
            for name, tokens in expected.items():
                np.testing.assert_allclose(found[name], tokens, rtol=1e-4, atol=1e-4, err_msg=name)
