"""One side of a comparison between processes: makes steps when a line comes in, and says how long.

Imports nothing but the standard library, since the other side has libraries of its own.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

STEPS = 3


def process_peak() -> int:
    """The most bytes that this process ever held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def serve(
    step: Callable[[], None],
    facts: dict[str, Any],
    peak: Callable[[], int] = process_peak,
    steps: int = STEPS,
) -> None:
    """Prints facts once it is ready, then a line for each line that it reads, after so many
    steps."""
    step()
    print(json.dumps(facts), flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(steps):
            step()
        seconds, cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu
        turn = {
            "seconds": seconds / steps,
            "cpu_seconds": cpu_seconds / steps,
            "peak_bytes": peak(),
        }
        print(json.dumps(turn), flush=True)
