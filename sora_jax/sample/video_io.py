"""Samples as files: MP4 or PNG, a JSON beside each that says how to make it again, contact sheets.

Every file is written beside its place and moved there whole, so that a reader, or a disk that is
full, never meets half of one.
"""

import collections
import io
import math
import re
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from sora_jax.data.media import encode_png
from sora_jax.errors import UserError
from sora_jax.files import write_file, write_json
from sora_jax.sample.mp4 import Mp4Writer
from sora_jax.sample.requests import Sample

SMALL_SIDE = 128  # pixels: clips below are shown larger, by a whole factor
SHEET_FRAMES = 6  # of a clip on a contact sheet, evenly spaced
SHEET_HEIGHT = 96  # pixels of a frame there
CHARACTER_WIDTH, LINE_HEIGHT, GAP = 6, 14, 8
NAME_BYTES = 255  # of a file's name
NAME_LENGTH = 60  # characters of a caption in a file's name


def enlarged(video: UInt8[np.ndarray, "t h w 3"]) -> UInt8[np.ndarray, "t h2 w2 3"]:
    """Repeats pixels until the shorter side has SMALL_SIDE, and both sides are even."""
    factor = max(1, math.ceil(SMALL_SIDE / min(video.shape[1:3])))
    if factor % 2 and (video.shape[1] % 2 or video.shape[2] % 2):
        factor += 1
    return video.repeat(factor, axis=1).repeat(factor, axis=2)


def playable_mp4(video: UInt8[np.ndarray, "t h w 3"], fps: float) -> bytes:
    """A clip as `Mp4Writer` writes it.

    Small clips are enlarged, which also keeps their colours whole. It is for people: read scores
    off arrays.
    """
    video = enlarged(video)
    file = io.BytesIO()
    with Mp4Writer(file, fps, *video.shape[1:3]) as writer:
        writer.write(video)
    return file.getvalue()


def file_stem(number: int, sample: Sample) -> str:
    """Name without suffix: number, caption in plain characters, seed."""
    words = re.sub(r"[^a-z0-9]+", "-", sample.request.prompt.lower()).strip("-")
    words = words[:NAME_LENGTH].rstrip("-") or "no-caption"
    return f"{number:04d}-{words}-seed{sample.request.seed}"


def describe(sample: Sample, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """All that made a sample. `provenance`: sampler settings and fingerprints, as JSON data."""
    request = sample.request
    return {
        "prompt": request.prompt,
        "prompt_is_cut": sample.prompt_is_cut,
        "seed": request.seed,
        "frames": request.frames,
        "height": request.height,
        "width": request.width,
        "fps": request.fps,
        "given_frames": 0 if request.given is None else len(request.given),
        # Of each latent frame: 0 is given, the others come from noise, 1, to data, 0.
        "noise_levels": [[0.0] if given else [1.0, 0.0] for given in sample.given],
        **provenance,
    }


def write_samples(
    samples: Sequence[Sample], directory: Path, provenance: Mapping[str, Any]
) -> list[Path]:
    """Writes MP4s (PNGs of single frames), a JSON beside each, and contact-sheet.png.

    Returns the paths of the MP4s and PNGs, in order.

    Raises:
        UserError: a file cannot be written.
    """
    paths = []
    for number, sample in enumerate(samples):
        stem = file_stem(number, sample)
        if len(sample.video) == 1:
            path, content = directory / f"{stem}.png", encode_png(sample.video[0])
        else:
            path, content = (
                directory / f"{stem}.mp4",
                playable_mp4(sample.video, sample.request.fps),
            )
        write_file(path, content)
        write_json(directory / f"{stem}.json", describe(sample, provenance))
        paths.append(path)
    clips = [(sample.request.prompt, sample.video) for sample in samples]
    write_file(directory / "contact-sheet.png", contact_sheet(clips))
    return paths


def vbench_names(prompts: Sequence[str]) -> list[str]:
    """Files of videos as VBench's tool looks for them: PROMPT-NUMBER.mp4, those of a prompt
    numbered from 0 in their order."""
    counts: collections.Counter[str] = collections.Counter()
    names = []
    for prompt in prompts:
        names.append(f"{prompt}-{counts[prompt]}.mp4")
        counts[prompt] += 1
    return names


def write_for_vbench(samples: Sequence[Sample], directory: Path) -> list[Path]:
    """Writes MP4s as VBench's tool looks for them. Returns their paths.

    Raises:
        UserError: no file can be called by a prompt, and then none is written; or one cannot be.
    """
    names = vbench_names([sample.request.prompt for sample in samples])
    for name in names:
        if "/" in name or "\0" in name or len(name.encode()) > NAME_BYTES:
            raise UserError(
                f"VBench names videos by their prompts, and no file can be called {name[:80]!r}: "
                "leave slashes out, and keep prompts below 250 bytes"
            )
    for name, sample in zip(names, samples, strict=True):
        write_file(directory / name, playable_mp4(sample.video, sample.request.fps))
    return [directory / name for name in names]


def contact_sheet(clips: Sequence[tuple[str, UInt8[np.ndarray, "t h w 3"]]]) -> bytes:
    """PNG with a row of frames for each clip, its caption above."""
    from PIL import Image

    bands = [_band(caption, video) for caption, video in clips]
    width = max(band.width for band in bands)
    sheet = Image.new("RGB", (width, sum(band.height for band in bands) + GAP), "white")
    top = 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    file = io.BytesIO()
    sheet.save(file, "PNG")
    return file.getvalue()


def _band(caption: str, video: UInt8[np.ndarray, "t h w 3"]) -> Any:
    from PIL import Image, ImageDraw

    shown = np.unique(np.linspace(0, len(video) - 1, SHEET_FRAMES).round().astype(int))
    frame_width = round(video.shape[2] * SHEET_HEIGHT / video.shape[1])
    # Wide enough for the caption also where there is one narrow frame.
    width = max(len(shown) * (frame_width + 2), 480) + 2 * GAP
    lines = textwrap.wrap(caption, (width - 2 * GAP) // CHARACTER_WIDTH) or ["(no caption)"]
    top = GAP + len(lines) * LINE_HEIGHT
    band = Image.new("RGB", (width, top + SHEET_HEIGHT + GAP), "white")
    ImageDraw.Draw(band).text((GAP, GAP - 2), "\n".join(lines), fill="black")
    enlarging = video.shape[1] < SHEET_HEIGHT
    filter_ = Image.Resampling.NEAREST if enlarging else Image.Resampling.BOX
    for place, frame in enumerate(video[shown]):
        cell = Image.fromarray(frame).resize((frame_width, SHEET_HEIGHT), filter_)
        band.paste(cell, (GAP + place * (frame_width + 2), top))
    return band
