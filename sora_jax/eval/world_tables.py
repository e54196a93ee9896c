"""Scores of the procedural worlds as tables, and the headings of their clips."""

import re
from collections.abc import Mapping

from sora_jax.eval.worlds.table import COMPOSITE
from sora_jax.page import Table
from sora_jax.world.worlds import WORLDS

TITLES = {
    "bounce": "Discs that bounce",
    "occluder": "A shape behind a bar",
    "pan": "A camera that pans and returns",
    "cube": "A cube that spins",
    "painter": "A square that paints as it is told",
}
PARTS = {
    "": "unseen clips",
    "held_out/": "combinations held back",
    "pairs/": "pairs of actions from one noise",
}
SCORES = {
    "": "model",
    "truth_vae/": "truth through the autoencoder",
    "nearest_train/": "nearest training clip",
    "frozen/": "first frame frozen",
    "noise/": "noise",
}

SECTIONS = {
    f"world_{name}{suite}": (f"{TITLES[name]}: {label}", "From a first frame and a caption.")
    for name in WORLDS
    for suite, label in {
        "": "unseen clips",
        "_held_out": "combinations held back",
        "_ood": "other speeds and sizes",
        "_pairs": "the same noise under other actions",
    }.items()
}
"""Headings of clips to look at, by suite."""


def world_tables(metrics: Mapping[str, float]) -> list[Table]:
    """Of each world: every score beside its columns, by part; and the grid of speeds and sizes."""
    tables = []
    for world in WORLDS:
        for part, label in PARTS.items():
            tables.append(_scores(metrics, f"world/{world}/{part}", f"{TITLES[world]}: {label}"))
        tables.append(_grid(metrics, world))
    return [table for table in tables if table.rows]


def _scores(metrics: Mapping[str, float], prefix: str, title: str) -> Table:
    own = re.compile(re.escape(prefix) + "([a-z0-9_]+)/low")
    names = [match[1] for match in map(own.fullmatch, metrics) if match]
    columns = {c: label for c, label in SCORES.items() if f"{prefix}{c}{COMPOSITE}" in metrics}
    rows = []
    for name in [n for n in names if n in (COMPOSITE, "copied")] + [
        n for n in names if n not in (COMPOSITE, "copied")
    ]:
        key = f"{prefix}{name}"
        cells = [
            f"{metrics[key]:.2f} ({metrics[f'{key}/low']:.2f} to {metrics[f'{key}/high']:.2f})"
        ]
        for other in ("scaled", "coverage", "median"):
            value = metrics.get(f"{key}/{other}")
            cells.append("" if value is None else f"{value:.3g}")
        for column in list(columns)[1:]:
            value = metrics.get(f"{prefix}{column}{name}")
            cells.append("" if value is None else f"{value:.2f}")
        rows.append((name.replace("_", " "), *cells))
    header = ("", "model", "scaled", "coverage", "median value", *list(columns.values())[1:])
    return Table(title, header, tuple(rows))


def _grid(metrics: Mapping[str, float], world: str) -> Table:
    """Composite of the model, and in brackets of the truth through the autoencoder."""
    cell = re.compile(f"world/{world}/ood/speed([0-9.]+)-size([0-9.]+)/{COMPOSITE}")
    found = {match.groups(): name for name in metrics if (match := cell.fullmatch(name))}
    speeds, sizes = (sorted({key[n] for key in found}, key=float) for n in (0, 1))
    rows = []
    for speed in speeds:
        cells = []
        for size in sizes:
            name = found.get((speed, size))
            if name is None:
                cells.append("trained on")
                continue
            ceiling = metrics[name.replace(COMPOSITE, f"truth_vae/{COMPOSITE}")]
            cells.append(f"{metrics[name]:.2f} ({ceiling:.2f} through the autoencoder)")
        rows.append((f"speed x {speed}", *cells))
    header = ("", *(f"size x {size}" for size in sizes))
    return Table(f"{TITLES[world]}: composite at other speeds and sizes", header, tuple(rows))
