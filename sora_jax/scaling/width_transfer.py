"""What checks of a parametrisation measured over widths: slopes, best rates, and their figures."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

COLOURS = ("#2563ae", "#c2410c", "#15803d", "#7e22ce", "#a16207", "#0e7490", "#be185d", "#525252")


@dataclasses.dataclass(frozen=True)
class Coordinates:
    """Mean |activation| of the parts of a network after a few updates at one rate."""

    widths: tuple[int, ...]
    sizes: Mapping[str, Mapping[str, tuple[float, ...]]]  # parametrisation -> part -> at each width

    def slopes(self) -> dict[str, dict[str, float]]:
        """d log |activation| / d log width, fitted: 0 where a part does not feel the width."""
        logs = np.log(self.widths)
        return {
            name: {
                part: float(np.polyfit(logs, np.log(values), 1)[0])
                for part, values in parts.items()
            }
            for name, parts in self.sizes.items()
        }


@dataclasses.dataclass(frozen=True)
class Basins:
    """Held-out losses of networks that were trained at each rate; not finite where it diverged."""

    widths: tuple[int, ...]
    rates: tuple[float, ...]  # rising
    losses: Mapping[str, Mapping[int, tuple[float, ...]]]  # parametrisation -> width -> by rate

    def best(self) -> dict[str, dict[int, float]]:
        """log2 of the best rate (see `best_exponent`)."""
        return {
            name: {width: best_exponent(self.rates, each) for width, each in by_width.items()}
            for name, by_width in self.losses.items()
        }

    def octaves(self) -> dict[str, float]:
        """By how many doublings of the rate the best one moves over all widths."""
        found = {name: list(each.values()) for name, each in self.best().items()}
        return {name: max(values) - min(values) for name, values in found.items()}

    def at_edge(self) -> dict[str, list[int]]:
        """Widths whose lowest loss is at the lowest or highest rate: the best may lie beyond."""
        edges = (0, len(self.rates) - 1)
        return {
            name: [width for width, each in by_width.items() if np.argmin(_finite(each)) in edges]
            for name, by_width in self.losses.items()
        }

    def transferred(self) -> dict[str, dict[int, float]]:
        """Losses at the rate that is best at the least width."""
        return {
            name: {
                width: each[int(np.argmin(_finite(by_width[self.widths[0]])))]
                for width, each in by_width.items()
            }
            for name, by_width in self.losses.items()
        }


def best_exponent(rates: Sequence[float], losses: Sequence[float]) -> float:
    """log2 of the best rate: the lowest point of the parabola through the lowest loss and its
    neighbours, or that loss's own rate where a neighbour is missing or diverged."""
    exponents, values = np.log2(rates), _finite(losses)
    at = int(np.argmin(values))
    near = slice(at - 1, at + 2)
    if not 0 < at < len(values) - 1 or not np.isfinite(values[near]).all():
        return float(exponents[at])
    curvature, tilt, _ = np.polyfit(exponents[near], values[near], 2)
    return float(-tilt / (2 * curvature) if curvature > 0 else exponents[at])


def _finite(losses: Sequence[float]) -> Float[np.ndarray, " r"]:
    return np.where(np.isfinite(losses), losses, np.inf)


def draw_coordinates(found: Coordinates, path: Path | str) -> None:
    """A PNG: a panel for each parametrisation, a line for each part."""
    panels, save = _panels(list(found.sizes), "width", "mean |activation|")
    slopes = found.slopes()
    for name, axes in panels.items():
        for number, (part, values) in enumerate(found.sizes[name].items()):
            style: Any = {"color": COLOURS[number % len(COLOURS)], "marker": "o", "markersize": 3}
            style["linestyle"] = ("-", "--", ":")[number // len(COLOURS) % 3]
            axes.plot(found.widths, values, label=f"{part} {slopes[name][part]:+.2f}", **style)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks(found.widths, [str(width) for width in found.widths])
        axes.legend(
            title="slope", fontsize=7, title_fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5)
        )
    save(path)


def draw_basins(found: Basins, path: Path | str) -> None:
    """A PNG: a panel for each parametrisation, a line of losses for each width, and a cross at its
    best rate."""
    panels, save = _panels(list(found.losses), "peak rate", "held-out loss")
    best, finite = (
        found.best(),
        [_finite(v) for each in found.losses.values() for v in each.values()],
    )
    lowest = min(values.min() for values in finite)
    highest = max(values[np.isfinite(values)].max() for values in finite)
    for name, axes in panels.items():
        for number, (width, values) in enumerate(found.losses[name].items()):
            colour, lowest_here = COLOURS[number % len(COLOURS)], float(_finite(values).min())
            axes.plot(found.rates, values, color=colour, marker="o", markersize=3, label=str(width))
            axes.plot(2 ** best[name][width], lowest_here, color=colour, marker="x", markersize=9)
        axes.set_xscale("log", base=2)
        axes.set_ylim(lowest * 0.99, min(highest, 1.6 * lowest) * 1.01)
        axes.legend(title="width", fontsize=8, title_fontsize=8)
    save(path)


def _panels(names: Sequence[str], across: str, up: str) -> tuple[dict[str, Any], Any]:
    """Axes by name, side by side with one scale, and what saves them."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5 * len(names), 4), layout="constrained")
    panels: Any = figure.subplots(1, len(names), squeeze=False, sharey=True)[0]
    for name, axes in zip(names, panels, strict=True):
        axes.set_title(name, loc="left", fontsize=11)
        axes.set_xlabel(across)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel(up)
    save = lambda path: figure.savefig(path, format="png", dpi=130)  # noqa: E731
    return dict(zip(names, panels, strict=True)), save
