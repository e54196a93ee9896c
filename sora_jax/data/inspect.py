"""What is in a set, for people: a picture of some clips of every bucket, and a page with all."""

import dataclasses
import html
import io
import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw

from sora_jax.data.buckets import Bucket
from sora_jax.data.media import encode_jpeg
from sora_jax.data.schema import DataError
from sora_jax.data.sources import ClipSet
from sora_jax.data.summary import Summary, buckets_of, facts, histogram, hours_text
from sora_jax.files import write_file
from sora_jax.page import bars_svg, data_url, facts_html, histogram_svg, page_html, table_html

CLIPS_PER_BUCKET = 4
FRAMES_PER_CLIP = 3  # first, middle, last
CELL_HEIGHT = 96  # pixels of a frame on the sheet
LINE_HEIGHT, CHARACTER_WIDTH, GAP = 14, 6, 8
SHEET_LINES = 3  # of a caption on the sheet
PAGE_CHARACTERS = 600  # of a caption on the page
OF_SCORES = (
    "Of the table that the set was exported from, where every clip cut from one shot has the "
    "scores of the whole shot. The outermost bars hold all that is beyond them; the table has the "
    "extremes."
)


@dataclasses.dataclass(frozen=True)
class ShownClip:
    """A clip as a row of some of its frames. Of one that cannot be decoded, the error is the
    caption, under a grey box."""

    caption: str
    strip: UInt8[np.ndarray, "h w 3"]


Shown = Sequence[tuple[Bucket, Sequence[ShownClip]]]


def shown_clips(clips: ClipSet) -> Shown:
    """Evenly spaced clips of each bucket; none of latents, which are no pixels.

    Raises:
        DataError: a shard cannot be read at all.
    """
    if clips.manifest.latents is not None:
        return []
    found = []
    for bucket in buckets_of(clips):
        source = clips.source(bucket)
        count = min(CLIPS_PER_BUCKET, len(source))
        chosen = np.linspace(0, len(source) - 1, count).astype(int).tolist()
        # One after another, for clips at full length are large.
        found.append((bucket, [_shown(source.clips([index])[0], bucket) for index in chosen]))
    return found


def _shown(found: tuple | DataError, bucket: Bucket) -> ShownClip:
    if isinstance(found, DataError):
        grey = np.full((bucket.frames, bucket.height, bucket.width, 3), 128, np.uint8)
        return ShownClip(f"cannot be shown: {found}", _strip(grey))
    record, video = found
    return ShownClip(record.caption, _strip(video))


def _strip(video: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "h w 3"]:
    """The first, middle and last frame of a clip side by side, CELL_HEIGHT high, white between."""
    shown = np.unique(np.linspace(0, len(video) - 1, FRAMES_PER_CLIP).astype(int))
    width = max(1, round(video.shape[2] * CELL_HEIGHT / video.shape[1]))
    enlarging = video.shape[1] < CELL_HEIGHT
    filter_ = Image.Resampling.NEAREST if enlarging else Image.Resampling.BOX
    strip = np.full((CELL_HEIGHT, len(shown) * (width + 2) - 2, 3), 255, np.uint8)
    for place, frame in enumerate(video[shown]):
        cell = Image.fromarray(frame).resize((width, CELL_HEIGHT), filter_)
        strip[:, place * (width + 2) :][:, :width] = np.asarray(cell)
    return strip


def write_sheet(path: Path, shown: Shown, summary: Summary) -> None:
    """Writes a PNG: a band for each bucket, its clips in it, their captions underneath.

    Raises:
        UserError: the file cannot be written.
    """
    titles = {
        each.name: f"{each.name}: {each.clips} clips, {hours_text(each.hours)} hours"
        for each in summary.buckets
    }
    bands = [_band(titles[bucket.name], clips) for bucket, clips in shown]
    width = max(band.width for band in bands)
    sheet = Image.new("RGB", (width, sum(band.height for band in bands)), "white")
    top = 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    file = io.BytesIO()
    sheet.save(file, "PNG")
    write_file(path, file.getvalue())


def _band(title: str, clips: Sequence[ShownClip]) -> Image.Image:
    # Wide enough for a caption of three lines also under one image.
    cell_width = max([180, *(clip.strip.shape[1] for clip in clips)]) + GAP
    height = CELL_HEIGHT + (SHEET_LINES + 2) * LINE_HEIGHT
    band = Image.new("RGB", (max(len(clips) * cell_width, 240) + GAP, height), "white")
    draw = ImageDraw.Draw(band)
    draw.text((GAP, 0), title, fill="black")
    for column, clip in enumerate(clips):
        left = GAP + column * cell_width
        band.paste(Image.fromarray(clip.strip), (left, LINE_HEIGHT))
        characters = (cell_width - GAP) // CHARACTER_WIDTH
        lines = textwrap.wrap(clip.caption[: SHEET_LINES * characters], characters)
        text = "\n".join(lines[:SHEET_LINES])
        draw.text((left, LINE_HEIGHT + CELL_HEIGHT + 2), text, fill="black")
    return band


def write_page(path: Path, clips: ClipSet, shown: Shown, summary: Summary) -> None:
    """Writes a page of HTML that needs no other file: tables, bars, histograms and clips.

    Raises:
        UserError: the file cannot be written.
    """
    name, whole = clips.directory.resolve().name, summary.all
    bars = [
        (each.name, float(each.clips), f"{each.clips}, {hours_text(each.hours)} h")
        for each in summary.buckets
    ]
    parts = [table_html(summary.table()), bars_svg(bars)]
    if summary.scores:
        plots = (
            f"<figure>{histogram_svg(score, *histogram(values))}</figure>"
            for score, values in summary.scores.items()
        )
        parts += [table_html(summary.score_table()), f"<p>{OF_SCORES}</p>"]
        parts.append(f"<div class='clips'>{''.join(plots)}</div>")
    for bucket, found in shown:
        figures = "\n".join(map(_figure, found))
        parts.append(f"<h2>{bucket.name}</h2><div class='clips'>{figures}</div>")
    parts.append(facts_html("Account", facts(clips, summary)))
    told = f"{whole.clips} clips, {hours_text(whole.hours)} hours of video."
    write_file(path, page_html(name, told, parts))


def _figure(clip: ShownClip) -> str:
    source = data_url("image/jpeg", encode_jpeg(clip.strip))
    text = clip.caption[:PAGE_CHARACTERS]
    text += "…" * (len(text) < len(clip.caption))
    width = max(clip.strip.shape[1], 180)
    return (
        f"<figure style='width:{width}px'><img src='{source}' alt='' "
        f"style='height:{CELL_HEIGHT}px'><figcaption dir='auto'>{html.escape(text)}</figcaption>"
        "</figure>"
    )
