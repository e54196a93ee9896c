"""The scores of a run as one self-contained page with playing videos."""

import dataclasses
import html
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sora_jax.data.media import encode_png
from sora_jax.eval.evaluator import Evaluation, Exhibit
from sora_jax.eval.tables import SECTIONS, Metrics, number, tables
from sora_jax.eval.world_tables import TITLES
from sora_jax.files import write_file
from sora_jax.page import SHOWN_HEIGHT, Table, data_url, facts_html, page_html, table_html
from sora_jax.sample.video_io import enlarged, playable_mp4

Curve = tuple[list[int], list[float]]  # steps and values

READ_BACK = (
    "Generated clips are read back to objects and compared with their captions; what cannot be "
    "read counts as wrong. In parentheses: 95 % intervals over clips."
)
# Metric -> what it is called, and what is shown beside it.
HEADLINES: dict[str, tuple[str, dict[str, str]]] = {
    f"text_to_video/{question}_accuracy": (
        question,
        {
            "floor": f"text_to_video/floor_shuffled/{question}_accuracy",
            "ceiling": f"text_to_video/ceiling_vae/{question}_accuracy",
        },
    )
    for question in ("colour", "shape", "count", "direction")
} | {
    "vae/psnr_db": ("autoencoder", {"bilinear": "vae/psnr_baseline_db"}),
    "animate/first_frame_psnr_db": (
        "animation, first frame",
        {"ceiling": "animate/first_frame_psnr_ceiling_db"},
    ),
    "animate/still_fraction": (
        "animations that stand still",
        {"true clips": "animate/ground_truth/still_fraction"},
    ),
    "nearest/accuracy": ("nearest clip is its own", {"of clips": "nearest/candidates"}),
    **{
        f"world/{name}/composite/scaled": (
            title,
            {
                "score": f"world/{name}/composite",
                "true clips through the autoencoder": f"world/{name}/truth_vae/composite",
            },
        )
        for name, title in TITLES.items()
    },
}
OVER_STEPS = {
    "held_out/loss": "loss on these clips",
    "text_to_video/colour_accuracy": "text to video: colour",
    "text_to_video/count_accuracy": "text to video: count",
    "text_to_video/direction_accuracy": "text to video: direction",
    "animate/first_frame_psnr_db": "animation, PSNR of the first frame",
    "nearest/accuracy": "nearest clip is its own",
    **{f"world/{name}/composite": f"{title}: composite" for name, title in TITLES.items()},
}
PLOTS_IN_ROW = 2


def read_curves(path: Path) -> dict[str, Curve]:
    """Every number of a metrics.jsonl by name, with the steps it was logged at."""
    curves: dict[str, Curve] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        values = json.loads(line)
        step = values.pop("step")
        for name, value in values.items():
            steps, series = curves.setdefault(name, ([], []))
            steps.append(step)
            series.append(value)
    return curves


def write_report(
    path: Path,
    evaluation: Evaluation,
    curves: Mapping[str, Mapping[str, Curve]],
    made_by: Mapping[str, str],
    history: Mapping[str, Curve] | None = None,
    title: str = "sora_jax: report of a run",
) -> None:
    """Writes the page.

    Args:
        path: of the HTML file; it needs no other.
        evaluation: scores and clips.
        curves: for each stage of training, its logged numbers; `loss` is drawn.
        made_by: the command, fingerprints and seeds behind the numbers.
        history: metrics of this and other steps of the run; those of OVER_STEPS are drawn.
        title: of the page.

    Raises:
        UserError: the file cannot be written.
    """
    metrics = evaluation.metrics
    parts = [_headlines(metrics), *map(_scores_html, tables(metrics))]
    for name, (heading, line) in SECTIONS.items():
        if name in evaluation.exhibits:
            clips = "\n".join(map(exhibit_html, evaluation.exhibits[name]))
            parts.append(f"<h2>{heading}</h2><p>{line}</p><div class='clips'>{clips}</div>")
    over_steps = {
        label: history[name]
        for name, label in OVER_STEPS.items()
        if history and len(history.get(name, ((), ()))[0]) > 1
    }
    if over_steps:
        drawn = _curves_svg(over_steps, is_log=False)
        parts.append(f"<h2>Over the steps of training</h2><div class='curves'>{drawn}</div>")
    losses = {f"{stage}: loss": values["loss"] for stage, values in curves.items()}
    if losses:
        drawn = _curves_svg(losses, is_log=True)
        parts.append(f"<h2>Training</h2><div class='curves'>{drawn}</div>")
    parts.append(facts_html("How it was made", list(made_by.items())))
    summary = READ_BACK if "text_to_video" in evaluation.exhibits else ""
    write_file(path, page_html(title, summary, parts))


def _scores_html(table: Table) -> str:
    return table_html(dataclasses.replace(table, title=f"{table.title}: scores"))


def _headlines(metrics: Metrics) -> str:
    cards = []
    for name, (label, beside) in HEADLINES.items():
        if name in metrics:
            others = ", ".join(f"{k} {number(v, metrics[v])}" for k, v in beside.items())
            figure = f"<span>{label}</span><b>{number(name, metrics[name])}</b>"
            cards.append(f"<div class='figure'>{figure}<small>{others}</small></div>")
    return f"<div class='figures'>{''.join(cards)}</div>"


def exhibit_html(exhibit: Exhibit) -> str:
    """The clips of a line side by side as one video, so that they stay in step."""
    video = _side_by_side(list(exhibit.clips.values()))
    # Sheets of many lines are shown as large as they are.
    height = max(SHOWN_HEIGHT, video.shape[1]) if len(video) == 1 else SHOWN_HEIGHT
    shown = round(video.shape[2] * height / video.shape[1])
    if len(video) == 1:
        source = data_url("image/png", encode_png(enlarged(video)[0]))
        media = f"<img src='{source}' alt='' style='height:{height}px'>"
    else:
        source = data_url("video/mp4", playable_mp4(video, exhibit.fps))
        media = f"<video autoplay loop muted playsinline src='{source}'></video>"
    labels = "".join(f"<span>{html.escape(label)}</span>" for label in exhibit.clips)
    labels = f"<div class='labels' style='width:{shown}px'>{labels}</div>"
    caption = html.escape(exhibit.caption)
    return (
        f"<figure style='width:{max(shown, 170)}px'>{labels}{media}"
        f"<figcaption>{caption}</figcaption></figure>"
    )


def _side_by_side(clips: Sequence[UInt8[np.ndarray, "t h w 3"]]) -> UInt8[np.ndarray, "..."]:
    """Clips of one size in a row, with white between; of a shorter one the last frame stays."""
    frames, gap = max(map(len, clips)), max(1, clips[0].shape[2] // 16)
    line = np.full((frames, clips[0].shape[1], gap, 3), 255, np.uint8)
    parts = []
    for clip in clips:
        shown = np.minimum(np.arange(frames), len(clip) - 1)
        parts += [clip[shown], line]
    return np.concatenate(parts[:-1], axis=2)


def _curves_svg(curves: Mapping[str, Curve], *, is_log: bool) -> str:
    """Values against steps, one plot a name."""
    from matplotlib.figure import Figure

    rows = -(-len(curves) // PLOTS_IN_ROW)
    columns = min(len(curves), PLOTS_IN_ROW)
    figure = Figure(figsize=(5 * columns, 3.2 * rows), layout="constrained")
    plots: Any = figure.subplots(rows, columns, squeeze=False).flat
    for (name, (steps, values)), axes in zip(curves.items(), plots, strict=False):
        axes.plot(steps, values, color="#2563ae", linewidth=1.4, marker="" if is_log else "o")
        if is_log:
            axes.set_yscale("log")
        axes.set_title(name, loc="left", fontsize=11)
        axes.set_xlabel("step")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for axes in list(plots):
        axes.set_axis_off()
    file = io.StringIO()
    figure.savefig(file, format="svg")
    svg = file.getvalue()
    return svg[svg.index("<svg") :]
