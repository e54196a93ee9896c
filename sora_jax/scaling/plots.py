"""Plots of a fit: valleys, best sizes and tokens, loss, residuals, basins; PNGs and one page."""

import html
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sora_jax.files import write_file
from sora_jax.page import Table, data_url, page_html, table_html
from sora_jax.scaling.fit import NEAR, Fit
from sora_jax.scaling.parametric import NAMES, log_loss, numbers
from sora_jax.scaling.power_laws import CI_95
from sora_jax.scaling.predict import best_size

BLUE, ORANGE, GREY = "#2563ae", "#d9822b", "#7a8594"
DOTS = 160  # a picture's dots an inch
BEYOND = 10.0  # times the largest budget that curves go on to

Draw = Callable[[Any, Fit], None]


def laws_table(fit: Fit) -> Table:
    """Exponents of the best size, and the numbers of parametric laws, with 95 % in parentheses."""
    rows = []
    for name, found in (("isoflop", fit.isoflop), ("envelope", fit.envelope)):
        if found is not None:
            low, high = found.parameters.interval("flops")
            exponent = f"{found.parameters.exponents['flops']:.4f} ({low:.3f} to {high:.3f})"
            rows.append((name, exponent, *[""] * len(NAMES)))
    for name, law in fit.parametric.items():
        values, draws = numbers(law.theta), numbers(law.draws)
        cells = []
        for each in ("a", *NAMES):
            low, high = np.quantile(draws[each], CI_95)
            digits = ".2f" if each in "AB" else ".5f"
            cells.append(f"{float(values[each]):{digits}} ({low:.3g} to {high:.3g})")
        rows.append((name, *cells))
    return Table("Laws", ("", "exponent of N", *NAMES), tuple(rows))


def write_page(directory: Path, fit: Fit, source: str) -> Path:
    """Writes the plots as PNG and a page with all of them; returns the page's path."""
    pictures = {name: _png(draw, fit) for name, (draw, has) in PLOTS.items() if has(fit)}
    for name, content in pictures.items():
        write_file(directory / f"{name}.png", content)
    parts = [table_html(laws_table(fit))]
    if fit.warnings:
        items = "".join(f"<li>{html.escape(text)}</li>" for text in fit.warnings)
        parts.append(f"<h2>Warnings</h2><ul>{items}</ul>")
    for name, content in pictures.items():
        url = data_url("image/png", content)
        parts.append(
            f"<h2>{name.replace('_', ' ').capitalize()}</h2>"
            f"<img style='max-width: 100%' alt='{name}' src='{url}'>"
        )
    flops = fit.points.flops
    summary = f"{len(flops)} runs of {source}, {flops[0]:.3g} to {flops[-1]:.3g} training FLOPs"
    page = directory / "index.html"
    write_file(page, page_html("Scaling laws", summary, parts))
    return page


def _png(draw: Draw, fit: Fit) -> bytes:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.2), layout="constrained", dpi=DOTS)
    draw(figure, fit)
    for axes in figure.axes:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def _colours(number: int) -> Any:
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0, 0.9, max(number, 1)))


def _isoflop(figure: Any, fit: Fit) -> None:
    axes, points = figure.subplots(), fit.points
    for valley, colour in zip(fit.valleys, _colours(len(fit.valleys)), strict=True):
        there = points.budgets == valley.budget
        label = f"{valley.budget:.3g}"
        axes.plot(
            points.parameters[there], points.losses[there], "o", ms=3.5, color=colour, label=label
        )
        x = np.log(points.parameters[valley.chosen])
        x = np.linspace(x.min(), x.max(), 60)
        axes.plot(np.exp(x), np.polyval(valley.parabola, x - valley.middle), color=colour, lw=1.2)
        if valley.problem is None:
            axes.plot(valley.parameters, valley.loss, "*", ms=11, color=ORANGE, zorder=3)
    lowest = [points.losses[points.budgets == each.budget].min() for each in fit.valleys]
    low, high = min(lowest), max(lowest)
    margin = 0.08 * (high - low)
    # Far from a minimum nothing is learnt from a valley, and its walls would hide the rest.
    axes.set(xscale="log", xlabel="parameters N", ylabel="held-out loss")
    axes.set_ylim(low - margin, high + 4 * margin)
    axes.legend(title="FLOPs", fontsize=7, title_fontsize=8, ncols=2, frameon=False)


def _best(name: str) -> Draw:
    def draw(figure: Any, fit: Fit) -> None:
        axes, found = figure.subplots(), fit.isoflop
        flops = _budgets_ahead(fit)
        if found is not None:
            law = getattr(found, name)
            good = [each for each in fit.valleys if each.problem is None]
            axes.plot(
                [v.budget for v in good],
                [getattr(v, name) for v in good],
                "o",
                color=BLUE,
                label="minima of valleys",
            )
            label = f"IsoFLOP, C^{law.exponents['flops']:.3f}, 95 %"
            axes.plot(flops, law.at(flops), color=BLUE, label=label)
            axes.fill_between(flops, *law.band(flops, CI_95), color=BLUE, alpha=0.18, lw=0)
        if fit.envelope is not None:
            best = fit.envelope.runs
            values = getattr(fit.points, name)[best]
            axes.plot(fit.points.flops[best], values, "x", color=GREY, label="best runs")
        if fit.predicts_with is not None:
            theta = fit.parametric[fit.predicts_with].theta[None]
            sizes = np.array([best_size(theta, fit.flops_of_token, each)[0] for each in flops])
            values = sizes if name == "parameters" else flops / fit.flops_of_token.at(sizes)
            axes.plot(flops, values, "--", color=ORANGE, label=fit.predicts_with.replace("_", " "))
        label = f"best {name} {'N' if name == 'parameters' else 'D'}"
        axes.set(xscale="log", yscale="log", xlabel="training FLOPs C", ylabel=label)
        axes.legend(fontsize=8, frameon=False)

    return draw


def _budgets_ahead(fit: Fit) -> Any:
    return np.geomspace(fit.points.flops[0], BEYOND * fit.points.flops[-1], 80)


def _loss(figure: Any, fit: Fit) -> None:
    axes, points, flops = figure.subplots(), fit.points, _budgets_ahead(fit)
    axes.plot(points.flops, points.losses, "o", ms=2.5, color=GREY, alpha=0.5, label="runs")
    if fit.predicts_with is not None:
        law = fit.parametric[fit.predicts_with]
        sizes = np.array(
            [best_size(law.theta[None], fit.flops_of_token, each)[0] for each in flops]
        )
        where = np.log(sizes), np.log(flops / fit.flops_of_token.at(sizes))
        label = fit.predicts_with.replace("_", " ") + ", 95 %"
        axes.plot(flops, np.exp(log_loss(law.theta[None], *where)[0][0]), color=ORANGE, label=label)
        band = np.exp(np.quantile(log_loss(law.draws, *where)[0], CI_95, axis=0))
        axes.fill_between(flops, *band, color=ORANGE, alpha=0.18, lw=0)
    if fit.isoflop is not None:
        good = [each for each in fit.valleys if each.problem is None]
        label = "minima, and their power law"
        axes.plot([v.budget for v in good], [v.loss for v in good], "o", ms=5, color=BLUE)
        axes.plot(flops, fit.isoflop.loss.at(flops), ":", color=BLUE, label=label)
    if "loss_predicted" in fit.held_out:
        place = fit.held_out["budget"], fit.held_out["loss_predicted"]
        axes.plot(*place, "D", ms=7, mfc="none", color="black", label="largest, from the others")
    lowest, highest = points.losses.min(), np.quantile(points.losses, 0.95)
    axes.set(xscale="log", yscale="log", xlabel="training FLOPs C", ylabel="held-out loss")
    axes.set_ylim(0.85 * lowest, 1.05 * highest)
    axes.yaxis.set_major_locator(_few())
    axes.yaxis.set_major_formatter("{x:.3g}")
    axes.yaxis.set_minor_formatter("")
    axes.legend(fontsize=8, frameon=False)


def _few() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(6)


def _residuals(figure: Any, fit: Fit) -> None:
    first, second = figure.subplots(1, 2, sharey=True)
    points = fit.points
    shown = [name for name in ("parametric_huber", fit.predicts_with) if name is not None]
    for name, colour in zip(dict.fromkeys(shown), (BLUE, ORANGE), strict=False):
        if name == "parametric_near":
            points = points.of(points.near_the_minimum(NEAR))
        theta = fit.parametric[name].theta[None]
        predicted = log_loss(theta, np.log(points.parameters), np.log(points.tokens))[0][0]
        errors = 100 * (predicted - np.log(points.losses))
        first.plot(points.parameters, errors, "o", ms=3, color=colour, label=name.replace("_", " "))
        second.plot(points.tokens, errors, "o", ms=3, color=colour)
    first.set(xscale="log", xlabel="parameters N", ylabel="predicted above observed loss, %")
    second.set(xscale="log", xlabel="tokens D")
    for axes in (first, second):
        axes.axhline(0, color=GREY, lw=0.8)
    first.legend(fontsize=8, frameon=False)


def _basins(figure: Any, fit: Fit) -> None:
    """Above each basin's own lowest loss, so that basins of all sizes can be seen at once."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import LogLocator

    sizes = [each.parameters for each in fit.basins]
    scale = ScalarMappable(LogNorm(min(sizes), 1.01 * max(sizes)), "viridis")
    settings = sorted({each.setting for each in fit.basins}, reverse=True)
    labels = {"peak_rate": "peak learning rate", "batch_tokens": "tokens of a batch"}
    many = figure.subplots(1, len(settings), squeeze=False)[0]
    for axes, setting in zip(many, settings, strict=True):
        for basin in (each for each in fit.basins if each.setting == setting):
            colour = scale.to_rgba(np.array([basin.parameters]))[0]
            above = 100 * (basin.losses / basin.losses.min() - 1)
            axes.plot(basin.tried, above, "o-", ms=3, lw=1, color=colour)
            if basin.best is not None:
                axes.axvline(basin.best, color=colour, lw=0.8, ls=":")
        axes.set(xscale="log", xlabel=labels[setting], ylabel="loss above the lowest, %")
        axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
        axes.xaxis.set_major_formatter("{x:.0e}")
        axes.xaxis.set_minor_formatter("")
    figure.colorbar(scale, ax=list(many), label="parameters N")


def _metrics(figure: Any, fit: Fit) -> None:
    many = figure.subplots(-(-len(fit.metrics) // 3), min(3, len(fit.metrics)), squeeze=False)
    flops = _budgets_ahead(fit)
    for axes, (name, law) in zip(many.flat, fit.metrics.items(), strict=False):
        runs = [each for each in fit.points.records if name in each.metrics]
        values = [each.metrics[name] for each in runs]
        axes.plot([each.flops for each in runs], values, "o", ms=2.5, color=GREY, alpha=0.5)
        axes.plot(flops, law.at(flops), color=BLUE)
        axes.fill_between(flops, *law.band(flops, CI_95), color=BLUE, alpha=0.18, lw=0)
        axes.set(xscale="log", yscale="log", title=name, xlabel="training FLOPs C")
    for axes in list(many.flat)[len(fit.metrics) :]:
        axes.set_axis_off()


PLOTS: dict[str, tuple[Draw, Callable[[Fit], bool]]] = {
    "isoflop_curves": (_isoflop, lambda fit: len(fit.valleys) > 0),
    "best_parameters": (_best("parameters"), lambda fit: bool(fit.isoflop or fit.predicts_with)),
    "best_tokens": (_best("tokens"), lambda fit: bool(fit.isoflop or fit.predicts_with)),
    "loss": (_loss, lambda fit: True),
    "residuals": (_residuals, lambda fit: "parametric_huber" in fit.parametric),
    "basins": (_basins, lambda fit: len(fit.basins) > 0),
    "metrics": (_metrics, lambda fit: len(fit.metrics) > 0),
}
