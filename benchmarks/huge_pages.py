"""Time of a transformer step of the demo with scratch memory in small pages, in huge ones, and in
huge ones that the process keeps, as `make demo` has it.

    python -m benchmarks.huge_pages

A process reads GLIBC_TUNABLES once, so every measurement is a process of its own; they take
turns. Prints medians and writes them, and the page faults, to benchmarks/results/huge_pages.json.
"""

import datetime
import json
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

TURNS = 4
HUGE = "glibc.malloc.hugetlb=1"
KEPT = "glibc.malloc.mmap_max=0", "glibc.malloc.trim_threshold=8589934592"
AHEAD = "glibc.malloc.top_pad=268435456"  # asked of the system at once
SETTINGS = {"small": "", "huge": HUGE, "kept": ":".join((HUGE, *KEPT, AHEAD))}
RESULT = Path(__file__).parent / "results" / "huge_pages.json"


def measure() -> None:
    """In a child: prints milliseconds a step and page faults of the process, as JSON."""
    import jax

    from benchmarks.demo_step import dit_case, milliseconds
    from sora_jax.config import load_experiment
    from sora_jax.sharding.mesh import make_mesh

    with jax.set_mesh(make_mesh(load_experiment("demo").mesh)):
        found = milliseconds({"step": dit_case()})["step"]
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    print(json.dumps({"milliseconds_a_step": found, "page_faults": faults}))


def main() -> None:
    """Takes turns, prints and writes."""
    rows: dict[str, list[dict[str, float]]] = {name: [] for name in SETTINGS}
    for _ in range(TURNS):
        for name, tunables in SETTINGS.items():
            done = subprocess.run(
                [sys.executable, "-c", "from benchmarks import huge_pages; huge_pages.measure()"],
                env=os.environ | {"GLIBC_TUNABLES": tunables},
                stdout=subprocess.PIPE,
                check=True,
            )
            rows[name].append(json.loads(done.stdout.splitlines()[-1]))
    medians = {
        name: {key: statistics.median(row[key] for row in its) for key in its[0]}
        for name, its in rows.items()
    }
    times = {name: median["milliseconds_a_step"] for name, median in medians.items()}
    ratios = {name: round(time / times["small"], 3) for name, time in times.items()}
    result = {
        "command": "python -m benchmarks.huge_pages",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores",
        "medians": medians,
        "all": rows,
        "ratios": ratios,
    }
    print(json.dumps({"medians": medians, "ratios": ratios}, indent=2))
    RESULT.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
