"""One process of benchmarks.checkpointing: saves a made-up state, or restores it, and says in what
time and memory.

    python -m benchmarks.restoring DIRECTORY save|all|ema MEGABYTES
"""

import json
import re
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from sora_jax.checkpoints import Checkpoints
from sora_jax.processes import join
from sora_jax.saved_arrays import bytes_read
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.train.optimizer import OptimizerConfig, make_optimizer
from sora_jax.train.state import abstract_state, init_state

MATRICES = 8
COPIES = 4  # model, average and two moments
WIDTH = 4096


class Matrices(nnx.Module):
    """A model of a few matrices that every mesh splits."""

    def __init__(self, megabytes: int, rngs: nnx.Rngs):
        height = megabytes * 1_000_000 // (COPIES * MATRICES * WIDTH * 4) // 64 * 64
        self.matrices = nnx.List(
            [
                nnx.Param(jax.random.normal(rngs.params(), (height, WIDTH)), axes=("embed", "mlp"))
                for _ in range(MATRICES)
            ]
        )


def memory(name: str) -> int:
    """Bytes that this process holds (VmRSS), or held at most since the peak was reset (VmHWM)."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def restored(checkpoints: Checkpoints, abstract: Any, part: str) -> dict[str, float]:
    """Seconds, bytes that were read, and that the process grew by at most, beside the bytes of its
    arrays."""
    jnp.zeros(1).block_until_ready()
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    before, started, read = memory("VmRSS"), time.perf_counter(), bytes_read()
    if part == "all":
        state = checkpoints.restore(abstract)
    else:
        state = checkpoints.restore_ema(abstract.ema)
    jax.block_until_ready(state)
    seconds, grown = time.perf_counter() - started, memory("VmHWM") - before
    shards = [shard for leaf in jax.tree.leaves(state) for shard in leaf.addressable_shards]
    held = sum(shard.data.nbytes for shard in shards)
    return {
        "seconds": round(seconds, 2),
        "held_mb": round(held / 1e6),
        "grown_mb": round(grown / 1e6),
        "read_mb": round((bytes_read() - read) / 1e6, 1),
        "ratio": round(grown / held, 3),
    }


def main(directory: str, part: str, megabytes: str) -> None:
    """Prints a line of JSON."""
    join()
    mesh = make_mesh(MeshConfig())
    optimizer = make_optimizer(OptimizerConfig("adamw"), 10)

    def make(rngs: nnx.Rngs) -> Matrices:
        return Matrices(int(megabytes), rngs)

    with jax.set_mesh(mesh):
        checkpoints = Checkpoints(directory)
        if part == "save":
            started = time.perf_counter()
            checkpoints.save(init_state(make, optimizer, jax.random.key(0), mesh), {})
            checkpoints.wait()
            found = {"seconds": round(time.perf_counter() - started, 2)}
        else:
            found = restored(checkpoints, abstract_state(make, optimizer, mesh), part)
        checkpoints.close()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
