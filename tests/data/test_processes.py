"""Real processes of one run draw the batches that one process draws, in the order of their rows."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from sora_jax.data.buckets import Bucket, DataConfig, Period, ShapeClass
from sora_jax.data.pipeline import Batches, Steps
from sora_jax.data.sources import ClipSet
from sora_jax.prepare import to_devices
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.sharding.rules import rows_sharding
from tests.processes import in_processes

STEPS = 500
CURRICULUM = (Period(210, (("1x8x8", 0.0), ("9x16x8", 3.0))), Period(333, (("1x8x8", 1.0),)))


def child(port: str, number: str, count: str, directory: str) -> None:
    """One of the processes: each holds some of the rows, or all hold a half."""
    jax.distributed.initialize(f"localhost:{port}", int(count), int(number))
    found = drawn(Path(directory), jax.devices())
    (Path(directory) / f"{number}.json").write_text(json.dumps(found))


def drawn(directory: Path, devices: list[jax.Device]) -> list[list[int]]:
    """Of every step: the bucket, and sums over the whole batch that tell rows apart."""
    sizes = ((1, 8, 8, 2.0), (5, 8, 8, 1.0), (5, 8, 16, 1.0), (9, 16, 8, 0.5))
    buckets = tuple(Bucket(*size) for size in sizes)
    config = DataConfig(buckets, (ShapeClass(8, 4),), text_length=12, caption_dropout=0.25)
    mesh = make_mesh(MeshConfig(fsdp=len(devices) // 2, tensor=2), devices)
    shardings = [rows_sharding(mesh)] * 4
    steps = Steps(ClipSet(directory), config, (8, 4, 4, 4), 7, shardings, curriculum=CURRICULUM)

    @jax.jit
    def digest(batch: Any) -> list[jax.Array]:
        rows = jnp.arange(len(batch.fps)) + 1
        leaves = (batch.example_id, batch.text, batch.video.astype(jnp.int32), batch.fps)
        return [jnp.sum(jnp.mean(x.reshape(len(rows), -1), 1) * rows) for x in leaves]

    found, batches = [], Batches(steps)
    for _ in range(STEPS):
        bucket, batch = next(batches)
        with jax.set_mesh(mesh):
            sums = digest(to_devices(batch, mesh))
        found.append([bucket, *(round(float(each) * 1000) for each in sums)])
    batches.close()
    return found


@pytest.mark.parametrize("count", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_processes_draw_the_batches_of_one(count: int, clip_set: ClipSet) -> None:
    alone = drawn(clip_set.directory, jax.devices()[: 2 * count])
    in_processes(count, "tests.data.test_processes", str(count), str(clip_set.directory))
    for number in range(count):
        path = clip_set.directory / f"{number}.json"
        assert json.loads(path.read_text()) == alone
        path.unlink()
    assert {line[0] for line in alone} == {0, 1, 2, 3}
