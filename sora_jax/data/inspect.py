"""What is in a set, for people: a table of its buckets and a picture of some of its clips."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from sora_jax.data.buckets import Bucket
from sora_jax.data.media import decode_record
from sora_jax.data.sources import ClipSet

CLIPS_PER_BUCKET = 4
FRAMES_PER_CLIP = 3  # first, middle, last
CELL_HEIGHT = 96  # pixels of a frame on the sheet
LINE_HEIGHT, CHARACTER_WIDTH, GAP = 14, 6, 8


def buckets_of(clips: ClipSet) -> list[Bucket]:
    """The buckets that a set has clips for, images first."""
    sizes = sorted(tuple(map(int, name.split("x"))) for name in clips.manifest.shards)
    return [Bucket(frames, height, width) for frames, height, width in sizes]


def table(clips: ClipSet) -> str:
    """One line a bucket, then the totals and the ledger's counts."""
    rows = [("bucket", "clips", "shards", "MB", "KB/clip")]
    for bucket in buckets_of(clips):
        shards = clips.manifest.shards[bucket.name]
        rows.append(_row(bucket.name, clips.manifest.records(bucket.name), shards))
    everything = [shard for shards in clips.manifest.shards.values() for shard in shards]
    rows.append(_row("all", sum(shard.records for shard in everything), everything))
    lines = [f"{name:14}" + "".join(f"{cell:>10}" for cell in cells) for name, *cells in rows]
    if clips.manifest.latents is not None:
        lines.append(str(clips.manifest.latents))
    lines.append(f"tokenizer: {clips.tokenizer.vocabulary_size} pieces")
    lines += [f"{name}: {count}" for name, count in clips.manifest.ledger_counts.items()]
    return "\n".join(lines)


def _row(name: str, records: int, shards: Sequence) -> tuple[str, str, str, str, str]:
    size = sum(shard.bytes for shard in shards)
    kilobytes = f"{size / 1e3 / max(records, 1):.1f}"
    return name, str(records), str(len(shards)), f"{size / 1e6:.2f}", kilobytes


def contact_sheet(clips: ClipSet, path: Path) -> None:
    """Writes a PNG: a band for each bucket, evenly spaced clips in it, captions underneath."""
    bands = [_band(clips, bucket) for bucket in buckets_of(clips)]
    width = max(band.width for band in bands)
    sheet = Image.new("RGB", (width, sum(band.height for band in bands)), "white")
    top = 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(path)


def _band(clips: ClipSet, bucket: Bucket) -> Image.Image:
    source = clips.source(bucket)
    count = min(CLIPS_PER_BUCKET, len(source))
    chosen = np.linspace(0, len(source) - 1, count).astype(int)
    shown = np.unique(np.linspace(0, bucket.frames - 1, FRAMES_PER_CLIP).astype(int))
    frame_width = round(bucket.width * CELL_HEIGHT / bucket.height)
    # Wide enough for a caption of three lines also under one image.
    cell_width = max(len(shown) * (frame_width + 2), 180) + GAP
    band = Image.new("RGB", (count * cell_width + GAP, CELL_HEIGHT + 5 * LINE_HEIGHT), "white")
    draw = ImageDraw.Draw(band)
    draw.text((GAP, 0), f"{bucket.name}: {len(source)} clips", fill="black")
    for column, index in enumerate(chosen):
        record = source[int(index)]
        left = GAP + column * cell_width
        for place, frame in enumerate(decode_record(record)[shown]):
            cell = Image.fromarray(frame).resize(
                (frame_width, CELL_HEIGHT), Image.Resampling.NEAREST
            )
            band.paste(cell, (left + place * (frame_width + 2), LINE_HEIGHT))
        lines = textwrap.wrap(record.caption, (cell_width - GAP) // CHARACTER_WIDTH)
        text = "\n".join(lines[:3])
        draw.text((left, LINE_HEIGHT + CELL_HEIGHT + 2), text, fill="black")
    return band
