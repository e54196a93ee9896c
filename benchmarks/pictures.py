"""Draws time and memory by part of the reports in docs/performance, for docs/performance.md.

    python -m benchmarks.pictures

Only steps of training that fit are drawn.
"""

import json
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt

from benchmarks.pod_reports import CASES, FOLDER

matplotlib.use("Agg")
SECONDS = {
    "matmuls": "matmul_seconds",
    "attention kernels": "kernel_seconds",
    "other": "other_seconds",
    "collectives that wait": "exposed_seconds",
}


def trained() -> dict[str, dict[str, Any]]:
    """The class of each report on training that fits, by the name of its case."""
    paths = {name: FOLDER / f"{name}.json" for name, case in CASES.items() if case.what == "train"}
    return {name: one(path) for name, path in paths.items() if path.exists() and one(path)["fits"]}


def one(path: Path) -> dict[str, Any]:
    """The only class of a report."""
    [found] = json.loads(path.read_text())["classes"]
    return found


def gibibytes(found: dict[str, Any]) -> dict[str, float]:
    """What the peak on a device is made of."""
    state = found["state_bytes"]
    parts = {
        "parameters": state["parameters"],
        "EMA": state["ema"],
        "moments": state["optimizer"],
        "activations, gradients, temporaries": found["peak_bytes"] - sum(state.values()),
    }
    return {name: size / 2**30 for name, size in parts.items()}


def draw(parts: dict[str, dict[str, float]], title: str, limits: dict[str, float], to: str) -> None:
    """Stacked bars, a case each; a mark where its limit is."""
    figure, axes = plt.subplots(figsize=(9, 0.4 * len(parts) + 1.5), layout="constrained")
    names = list(parts)[::-1]
    left = [0.0] * len(names)
    for part in parts[names[0]]:
        widths = [parts[name][part] for name in names]
        axes.barh(names, widths, left=left, label=part)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    for place, name in enumerate(names):
        if name in limits:
            axes.plot([limits[name]] * 2, [place - 0.4, place + 0.4], color="black")
    axes.set_xlabel(title)
    axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4, frameon=False)
    figure.savefig(FOLDER / to, dpi=110)
    plt.close(figure)


def main() -> None:
    """Writes time.png and memory.png beside the reports."""
    found = trained()
    seconds = {
        name: {part: each[key] for part, key in SECONDS.items()} for name, each in found.items()
    }
    draw(seconds, "seconds of a step, predicted", {}, "time.png")
    memory = {name: gibibytes(each) for name, each in found.items()}
    limits = {name: each["hbm_bytes"] / 2**30 for name, each in found.items()}
    draw(memory, "GiB of a device; the line is all it has", limits, "memory.png")


if __name__ == "__main__":
    main()
