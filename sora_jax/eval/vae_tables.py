"""Measures of an autoencoder as tables, a page with playing clips, and a picture of them."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sora_jax.eval.evaluator import Exhibit
from sora_jax.eval.report import exhibit_html
from sora_jax.page import Table, facts_html, page_html, table_html
from sora_jax.sample.video_io import enlarged

Metrics = Mapping[str, float]

COLUMNS = {
    "": "autoencoder",
    "bilinear/": "bilinear",
    "jpeg/": "JPEG",
    "av1/": "AV1",
}
QUALITY = {
    "psnr_db": ("PSNR, dB", ".2f"),
    "ssim": ("SSIM", ".4f"),
    "flicker": ("flicker, levels", ".2f"),
    "flicker_relative": ("flicker, share of motion", ".3f"),
    "bytes": ("bytes", ",.0f"),
}
LATENTS = {
    "quantised/psnr_db": ("PSNR with 8 bits a number, dB", ".2f"),
    "latents/mean_most": ("largest mean of a channel", ".3f"),
    "latents/deviation_least": ("least deviation of a channel", ".3f"),
    "latents/deviation_most": ("most", ".3f"),
    "latents/kurtosis_most": ("largest excess kurtosis", ".2f"),
    "latents/correlation_most": ("largest correlation of two channels", ".3f"),
    "latents/channels_used": ("channels that variance is spread over", ".1f"),
    "latents/correlation_time": ("correlation with the next frame", ".3f"),
    "latents/correlation_height": ("with the next cell down", ".3f"),
    "latents/correlation_width": ("with the next cell across", ".3f"),
    "latents/posterior_deviation": ("deviation of the posterior", ".3f"),
    "latents/path_ratio": ("path between clips, of the straight one", ".3f"),
    "latents/longest_step": ("its longest of 8 steps, of the mean", ".2f"),
    "latents/noise_psnr_db": ("PSNR under noise of 0.1, dB", ".2f"),
}
DISTANCES = {
    "frechet": "Fréchet distance of decoded clips",
    "frechet_null_mean": "between halves of true clips, mean",
    "frechet_grain": "true clips with a codec's grain",
    "frechet_shuffled": "true clips with shuffled frames",
    "real_clips": "clips",
}
GAP, LABEL_HEIGHT = 6, 16  # pixels


def tables(by_bucket: Mapping[str, Metrics]) -> list[Table]:
    """Of each bucket how close the columns come; then of all of them latents and distances."""
    found = [_quality_table(bucket, metrics) for bucket, metrics in by_bucket.items()]
    found.append(_across("Latents, normalised", by_bucket, LATENTS))
    names = sorted(
        {n for metrics in by_bucket.values() for n in metrics if n.startswith("frechet")}
    )
    for backbone in sorted({name.partition("/")[2] for name in names}):
        lines = {f"{name}/{backbone}": (label, ".4g") for name, label in DISTANCES.items()}
        found.append(_across(f"Distribution, by {backbone}", by_bucket, lines))
    return [table for table in found if table.rows]


def _quality_table(bucket: str, metrics: Metrics) -> Table:
    measures = dict(QUALITY)
    for name in metrics:
        if name.startswith("lpips/") and name.count("/") == 1:
            measures[name] = (f"LPIPS, by {name.partition('/')[2]}", ".4f")
    known = dict(metrics) | {"bytes": metrics["latent_bytes"]}
    rows = []
    for measure, (label, form) in measures.items():
        cells = [_cell(known, f"{column}{measure}", form) for column in COLUMNS]
        if any(cells):
            rows.append((label, *cells))
    title = f"{bucket}: {metrics['clips']:.0f} clips"
    return Table(title, ("", *COLUMNS.values()), tuple(rows))


def _across(
    title: str, by_bucket: Mapping[str, Metrics], lines: Mapping[str, tuple[str, str]]
) -> Table:
    """A column for each bucket that has one of the lines."""
    having = {name: each for name, each in by_bucket.items() if lines.keys() & each.keys()}
    rows = []
    for line, (label, form) in lines.items():
        cells = [_cell(metrics, line, form) for metrics in having.values()]
        if any(cells):
            rows.append((label, *cells))
    return Table(title, ("", *having), tuple(rows))


def _cell(metrics: Metrics, name: str, form: str) -> str:
    return f"{metrics[name]:{form}}" if name in metrics else ""


def tables_text(by_bucket: Mapping[str, Metrics]) -> str:
    """For a terminal."""
    return "\n".join(f"\n{table.title}\n{table.text()}" for table in tables(by_bucket))


def page(
    by_bucket: Mapping[str, Metrics],
    exhibits: Mapping[str, Sequence[Exhibit]],
    made_by: Mapping[str, str],
) -> bytes:
    """The tables and the clips of each bucket as one page of HTML."""
    parts = [table_html(table) for table in tables(by_bucket)]
    for bucket, lines in exhibits.items():
        clips = "\n".join(map(exhibit_html, lines))
        parts.append(f"<h2>Clips of {bucket}</h2><div class='clips'>{clips}</div>")
    parts.append(facts_html("How it was made", list(made_by.items())))
    summary = (
        "Held-out clips through the autoencoder, beside a bilinear resize to as many numbers as "
        "its latents and codecs at the bytes of its latents, at 8 bits a number."
    )
    return page_html("sora_jax: measures of an autoencoder", summary, parts)


def pictures_png(exhibits: Sequence[Exhibit]) -> bytes:
    """The frames in the middle of the clips, side by side under their labels: a row for each
    exhibit, of which there is at least one."""
    from PIL import Image

    rows = [_row(exhibit) for exhibit in exhibits]
    sheet = Image.new("RGB", (max(r.width for r in rows), sum(r.height for r in rows)), "white")
    top = 0
    for row in rows:
        sheet.paste(row, (0, top))
        top += row.height
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _row(exhibit: Exhibit) -> Any:
    from PIL import Image, ImageDraw

    frames: dict[str, UInt8[np.ndarray, "h w 3"]] = {
        label: enlarged(clip[len(clip) // 2][None])[0] for label, clip in exhibit.clips.items()
    }
    height, width = next(iter(frames.values())).shape[:2]
    row = Image.new("RGB", ((width + GAP) * len(frames), height + LABEL_HEIGHT + GAP), "white")
    for place, (label, frame) in enumerate(frames.items()):
        ImageDraw.Draw(row).text((place * (width + GAP), 2), label, fill="black")
        row.paste(Image.fromarray(frame), (place * (width + GAP), LABEL_HEIGHT))
    return row
