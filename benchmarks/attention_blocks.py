"""Ranks block sizes of the flash kernels for a generation of TPU, by libtpu's schedules.

    python -m benchmarks.attention_blocks --generation v5p

No TPU is needed. First the sizes of a multiply are ranked, at one size of blocks, then blocks, with
the best two of those; what does not fit VMEM is left out. Among those within 1 % of the best, the
one of the shortest code wins. Prints all, and the row for sora_jax/nn/block_sizes.py; writes
benchmarks/results/attention_blocks_GENERATION.json. Some twenty kernels are compiled, of 5 to 20
seconds, on tpu7x up to a minute. `--check 19456x75776` counts at another length too what the table
would have for it.
"""

import argparse
import dataclasses
import datetime
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any

import jax

from sora_jax.nn.block_sizes import OTHER, Blocks, blocks_for
from sora_jax.pod.chips import GENERATIONS
from sora_jax.pod.compiler import OutOfMemory
from sora_jax.pod.schedule import Probe, kernel_cycles
from sora_jax.podcheck import SCHEDULES

WIDTH = 128
UNITS = {"forward": 2, "backward": 5}  # matmuls of queries x keys x width
NEAR = 0.99  # of the best share; code that is shorter wins
MULTIPLIES = {
    "forward": [
        {"hold": hold, "query_compute": query, "key_compute": key}
        for hold, query, key in (
            ("values", 1024, 512),
            ("values", 1024, 1024),
            ("values", 512, 512),
            ("weights", 512, 256),
            ("weights", 256, 512),
            ("weights", 256, 1024),
        )
    ],
    "backward": [{"backward_key_compute": key} for key in (256, 512, 1024)],
}
BLOCKS = {
    "forward": [
        {"query": query, "key": key}
        for query, key in ((1024, 2048), (1024, 4096), (2048, 2048), (512, 4096))
    ],
    "backward": [
        {"backward_query": query, "backward_key": key}
        for query, key in ((1024, 1024), (1024, 2048), (2048, 1024), (512, 2048))
    ],
}


@dataclasses.dataclass(frozen=True)
class Shape:
    """What a kernel is counted on: one row of a clip, in bfloat16."""

    heads: int
    queries: int
    keys: int


def count(generation: str, direction: str, shape: Shape, sizes: dict[str, Any]) -> dict[str, Any]:
    """Share of the chip's peak and length of the code, or what is missing."""
    chip = GENERATIONS[generation]
    topology = f"{generation}:" + ("2x2x1" if chip.torus_axes == 3 else "2x2")
    blocks = dataclasses.asdict(dataclasses.replace(Blocks(), **sizes))
    arguments = {**dataclasses.asdict(shape), "rows": 1, "width": WIDTH, "blocks": blocks}
    probe = Probe(f"sora_jax.nn.probes:flash_{direction}", arguments)
    try:
        [found] = kernel_cycles(probe, topology, SCHEDULES).values()
    except OutOfMemory as shortage:
        return {"sizes": sizes, "does_not_fit": str(shortage)}
    flops = UNITS[direction] * 2 * shape.heads * shape.queries * shape.keys * WIDTH
    share = flops / (found.cycles / chip.clock_hz * chip.peak_flops)
    return {"sizes": sizes, "share_of_peak": round(share, 4), "bundles": found.bundles}


def search(generation: str, direction: str, shape: Shape) -> list[dict[str, Any]]:
    """All that were counted, the winner first."""
    blocks = BLOCKS[direction]
    first = [_shown(generation, direction, shape, blocks[0] | m) for m in MULTIPLIES[direction]]
    best = sorted(first, key=_share, reverse=True)[:2]
    multiplies = [{key: row["sizes"][key] for key in MULTIPLIES[direction][0]} for row in best]
    rest = [_shown(generation, direction, shape, b | m) for b in blocks[1:] for m in multiplies]
    ranked = sorted(first + rest, key=_share, reverse=True)
    near = [row for row in ranked if _share(row) >= NEAR * _share(ranked[0])]
    winner = min(near, key=lambda row: row["bundles"])
    return [winner, *(row for row in ranked if row is not winner)]


def _share(row: dict[str, Any]) -> float:
    return row.get("share_of_peak", 0.0)


def _shown(generation: str, direction: str, shape: Shape, sizes: dict[str, Any]) -> dict[str, Any]:
    row = count(generation, direction, shape, sizes)
    words = row.get("does_not_fit") or f"{row['share_of_peak']:.1%}, {row['bundles']:,} bundles"
    print(f"{generation} {direction} {sizes}: {words}", flush=True)
    return row


def main(arguments: list[str]) -> None:
    """Searches, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--generation", choices=GENERATIONS, required=True)
    parser.add_argument("--heads", type=int, default=4)
    parser.add_argument("--queries", type=int, default=4096)
    parser.add_argument("--keys", type=int, default=8192)
    parser.add_argument("--check", metavar="QUERIESxKEYS", action="append", default=[])
    asked = parser.parse_args(arguments)
    generation, shape = asked.generation, Shape(asked.heads, asked.queries, asked.keys)
    ranked = {direction: search(generation, direction, shape) for direction in UNITS}
    winner = ranked["forward"][0]["sizes"] | ranked["backward"][0]["sizes"]
    checks = {}
    for text in asked.check:
        queries, keys = map(int, text.split("x"))
        chosen = dataclasses.replace(OTHER, blocks=dataclasses.replace(Blocks(), **winner))
        sizes = dataclasses.asdict(blocks_for(queries, keys, chosen))
        longer = Shape(asked.heads, queries, keys)
        checks[text] = {d: _shown(generation, d, longer, sizes) for d in UNITS}
    print(f"{generation}: {dataclasses.replace(Blocks(), **winner)}")
    result = {
        "command": " ".join(["python -m benchmarks.attention_blocks", *arguments]),
        "date": datetime.date.today().isoformat(),
        "versions": {"jax": jax.__version__, "libtpu": importlib.metadata.version("libtpu")},
        "shape": {**dataclasses.asdict(shape), "width": WIDTH, "dtype": "bfloat16"},
        "winner": winner,
        "ranked": ranked,
        "checks": checks,
    }
    path = Path(__file__).parent / "results" / f"attention_blocks_{generation}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
