"""Shares of a chip's peak that attention kernels reach, by libtpu's schedules: ours and splash.

    python -m benchmarks.attention_kernels                all generations
    python -m benchmarks.attention_kernels v5p v6e        some

No TPU is needed. One row of 4,096 queries x 8,192 keys, 4 heads of 128, bfloat16, segments, forward
and backward. Ours has the table's blocks. For JAX's splash, and tokamax's where it is installed,
several blocks are tried, in 60 MiB of VMEM, and the best share of each direction is given. FLOPs
are those of the algorithm: 2 matmuls forward, 5 backward. Prints a table and writes
benchmarks/results/attention_kernels.json; rows of kernels that cannot be counted now stay there.
"""

import datetime
import importlib.metadata
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp

from sora_jax.nn.block_sizes import Blocks
from sora_jax.nn.kernels import attend_splash
from sora_jax.pod.chips import GENERATIONS
from sora_jax.pod.compiler import Options, OutOfMemory
from sora_jax.pod.schedule import Probe, ProbeFailed, kernel_cycles
from sora_jax.podcheck import SCHEDULES

HEADS, QUERIES, KEYS, WIDTH = 4, 4096, 8192, 128
MATMULS = {"forward": 2, "backward": 5}
RESULT = Path(__file__).parent / "results" / "attention_kernels.json"
# Splash kernels state no limit of their own, and then have 16 MiB.
VMEM = {"xla_tpu_scoped_vmem_limit_kib": 60 * 2**10}
# query, key, key_compute, backward_query, backward_key, backward_key_compute
TRIED = (
    (1024, 2048, 512, 1024, 1024, 512),
    (1024, 2048, 1024, 1024, 2048, 512),
    (2048, 2048, 512, 2048, 1024, 512),
)
Probed = tuple[Callable[..., Any], tuple[jax.ShapeDtypeStruct, ...]]


def splash(blocks: list[int]) -> Probed:
    """A probe: output and gradients by JAX's kernel."""
    names = ("query", "key", "key_compute")
    backward = ("backward_query", "backward_key", "backward_key_compute")
    sizes = Blocks(**dict(zip(names + backward, blocks, strict=True)))

    def attend(*arrays: jax.Array) -> jax.Array:
        return attend_splash(*arrays, blocks=sizes, name="kept")

    return _with_gradients(attend)


def tokamax(blocks: list[int]) -> Probed:
    """The same by tokamax's, which descends from it."""
    from tokamax._src.ops.experimental.tpu.splash_attention import splash_attention_kernel as kernel
    from tokamax._src.ops.experimental.tpu.splash_attention import splash_attention_mask as masks

    names = ("block_q", "block_kv", "block_kv_compute")
    backward = ("block_q_dkv", "block_kv_dkv", "block_kv_dkv_compute")
    sizes = dict(zip(names + backward, blocks, strict=True))
    mask = masks.FullMask((QUERIES, KEYS))
    made = kernel.make_splash_mha_single_device(mask, config=kernel.SplashConfig(**sizes))

    def attend(query: Any, key: Any, value: Any, *segments: jax.Array) -> jax.Array:
        query = (query / jnp.sqrt(WIDTH)).astype(query.dtype)
        by_heads = (jnp.swapaxes(x, 1, 2) for x in (query, key, value))
        out = jax.vmap(made)(*by_heads, kernel.SegmentIds(*segments))
        return jnp.swapaxes(out, 1, 2)

    return _with_gradients(attend)


def _with_gradients(attend: Callable[..., jax.Array]) -> Probed:
    def run(query: Any, key: Any, value: Any, query_of: Any, key_of: Any) -> Any:
        out, pullback = jax.vjp(lambda *x: attend(*x, query_of, key_of), query, key, value)
        return pullback(out)

    query = jax.ShapeDtypeStruct((1, QUERIES, HEADS, WIDTH), jnp.bfloat16)
    key = jax.ShapeDtypeStruct((1, KEYS, HEADS, WIDTH), jnp.bfloat16)
    query_of = jax.ShapeDtypeStruct((1, QUERIES), jnp.int32)
    return run, (query, key, key, query_of, jax.ShapeDtypeStruct((1, KEYS), jnp.int32))


def ours(generation: str) -> dict[str, float]:
    """Shares by direction, with the table's blocks."""
    shape = {"rows": 1, "heads": HEADS, "queries": QUERIES, "keys": KEYS, "width": WIDTH}
    return {
        direction: _shares(generation, Probe(f"sora_jax.nn.probes:flash_{direction}", shape))[name]
        for direction, name in (("forward", "flash_forward"), ("backward", "flash_backward"))
    }


def theirs(generation: str, name: str) -> dict[str, float]:
    """The best shares of all the blocks that are tried; of none that compiles, an empty one."""
    best: dict[str, float] = {}
    for blocks in TRIED:
        probe = Probe(f"benchmarks.attention_kernels:{name}", {"blocks": list(blocks)})
        try:
            found = _shares(generation, probe, VMEM)
        except OutOfMemory as shortage:
            print(f"{generation} {name} {blocks}: {shortage}", flush=True)
            continue
        except ProbeFailed as failure:
            print(f"{generation} {name} {blocks}: {str(failure)[-300:]}", flush=True)
            continue
        for kernel, share in found.items():
            direction = "forward" if "fwd" in kernel else "backward"
            best[direction] = max(share, best.get(direction, 0.0))
    return best


def _shares(
    generation: str, probe: Probe, options: Options = MappingProxyType({})
) -> dict[str, float]:
    chip = GENERATIONS[generation]
    topology = f"{generation}:" + ("2x2x1" if chip.torus_axes == 3 else "2x2")
    shares = {}
    for kernel, found in kernel_cycles(probe, topology, SCHEDULES, options).items():
        forward = "forward" in kernel or "fwd" in kernel
        matmuls = MATMULS["forward" if forward else "backward"]
        flops = matmuls * 2 * HEADS * QUERIES * KEYS * WIDTH
        seconds = found.cycles / chip.clock_hz
        shares[kernel] = round(flops / seconds / chip.peak_flops, 4)
    return shares


def table(shares: dict[str, dict[str, dict[str, float]]]) -> str:
    """Generations by kernels, as Markdown: forward / backward."""
    kernels = sorted({kernel for row in shares.values() for kernel in row})
    lines = [f"| generation | {' | '.join(kernels)} |", "|---" * (len(kernels) + 1) + "|"]
    for generation, row in shares.items():
        cells = []
        for kernel in kernels:
            found = row.get(kernel, {})
            cells.append(" / ".join(f"{found[d]:.0%}" if d in found else "-" for d in MATMULS))
        lines.append(f"| {generation} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(generations: list[str]) -> None:
    """Counts, prints and writes."""
    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {"shares_of_peak": {}}
    shares, versions = kept["shares_of_peak"], kept.get("versions", {})
    versions |= {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}
    for generation in generations or GENERATIONS:
        row = shares.setdefault(generation, {})
        row["ours"] = ours(generation)
        row["splash"] = theirs(generation, "splash")
        if importlib.util.find_spec("tokamax") is not None:
            versions["tokamax"] = importlib.metadata.version("tokamax")
            row["tokamax"] = theirs(generation, "tokamax")
    print(table(shares))
    result = {
        "command": "python -m benchmarks.attention_kernels",
        "date": datetime.date.today().isoformat(),
        "versions": versions,
        "shape": {"heads": HEADS, "queries": QUERIES, "keys": KEYS, "width": WIDTH},
        "shares_of_peak": shares,
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
