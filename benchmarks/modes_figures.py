"""Figures of every task, out of an evaluated run of experiments/modes.py.

    sora evaluate --checkpoint runs/modes --suite modes
    python -m benchmarks.modes_figures --run runs/modes

Prints the table of docs/modes.md, writes it to benchmarks/results/modes.json, and draws
docs/modes.png: of each task the first clip that was made.
"""

import argparse
import datetime
import json
import os
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from sora_jax.eval.mode_tables import BARS, HEADER, mode_table
from sora_jax.eval.mode_tables import COLUMNS as BOUNDS
from sora_jax.eval.store import unpacked

HERE = Path(__file__).resolve().parent
RESULT, PICTURE = HERE / "results" / "modes.json", HERE.parent / "docs" / "modes.png"
HEADING, GAP, COLUMNS, ENLARGED = 14, 10, 2, 2


def minutes_of(run: Path, stage: str) -> float:
    """That the steps of a stage took, by its log."""
    lines = map(json.loads, (run / stage / "metrics.jsonl").read_text().splitlines())
    before, seconds = 0, 0.0
    for line in lines:
        if "seconds/step" in line:
            seconds += (line["step"] - before) * line["seconds/step"]
            before = line["step"]
    return round(seconds / 60, 1)


def sheet_of(folder: Path, task: str) -> tuple[str, np.ndarray]:
    """The first contact sheet of a task, and its prompt."""
    path = folder / f"modes_{task}.npz"
    clips = unpacked(path.read_bytes()).clips["generated"]
    place, sheet = min(clips.items())
    heading = json.loads(str(np.load(path)["heading"]))
    return heading["prompts"][str(place)], sheet[0]


def draw(folder: Path, path: Path) -> None:
    """All tasks, in columns."""
    panels = []
    for task in BARS:
        prompt, sheet = sheet_of(folder, task)
        size = (sheet.shape[1] * ENLARGED, sheet.shape[0] * ENLARGED)
        panel = Image.new("RGB", (size[0], size[1] + HEADING + GAP), "white")
        words = f"{task.replace('_', ' ')}" + (f': "{prompt}"' if prompt else "")
        ImageDraw.Draw(panel).text((2, 1), words, fill="black")
        panel.paste(Image.fromarray(sheet).resize(size, 0), (0, HEADING))
        panels.append(panel)
    columns: list[list[Image.Image]] = [[] for _ in range(COLUMNS)]
    for panel in panels:  # to the shortest column
        min(columns, key=lambda each: sum(one.height for one in each)).append(panel)
    width = max(panel.width for panel in panels) + GAP
    height = max(sum(one.height for one in each) for each in columns)
    whole = Image.new("RGB", (COLUMNS * width, height), "white")
    for number, column in enumerate(columns):
        top = 0
        for panel in column:
            whole.paste(panel, (number * width, top))
            top += panel.height
    whole.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True)
    run = parser.parse_args().run
    metrics = json.loads((run / "metrics.json").read_text())
    table = mode_table(metrics)
    beside = (*(f"/{column}" for column in BOUNDS), "/low", "/high")
    numbers = {
        metric: value
        for metric, value in metrics.items()
        if metric.startswith("modes/") and not any(part in metric for part in beside)
    }
    result = {
        "command": "python -m benchmarks.modes_figures --run runs/modes",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores",
        "step": metrics["step"],
        "minutes_of_training": {stage: minutes_of(run, stage) for stage in ("vae", "dit")},
        "title": table.title,
        "rows": [dict(zip(HEADER, row, strict=True)) for row in table.rows],
        "metrics": {metric: float(f"{value:.4g}") for metric, value in numbers.items()},
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    folders = sorted((run / "evaluation").iterdir(), key=lambda each: each.stat().st_mtime)
    draw(folders[-1], PICTURE)
    print(table.title)
    for row in table.rows:
        print(f"| {' | '.join(row)} |")


if __name__ == "__main__":
    main()
