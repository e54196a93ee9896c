"""Samples as files: MP4 or PNG that say how to make them again, a JSON beside each, contact sheets.

Every file is written beside its place and moved there whole, so that a reader, or a disk that is
full, never meets half of one.
"""

import collections
import hashlib
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
from sora_jax.sample.metadata import as_comment
from sora_jax.sample.mp4 import Mp4Writer
from sora_jax.sample.requests import Request, Sample, Video

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


def playable_mp4(
    video: UInt8[np.ndarray, "t h w 3"], fps: float, metadata: Mapping[str, Any] | None = None
) -> bytes:
    """A clip as `Mp4Writer` writes it.

    Small clips are enlarged, which also keeps their colours whole. It is for people: read scores
    off arrays.
    """
    video = enlarged(video)
    file = io.BytesIO()
    with Mp4Writer(file, fps, video.shape[1], video.shape[2], metadata) as writer:
        writer.write(video)
    return file.getvalue()


def file_stem(number: int, prompt: str, seed: int) -> str:
    """Name without suffix: number, prompt in plain characters, seed."""
    words = re.sub(r"[^a-z0-9]+", "-", prompt.lower()).strip("-")
    words = words[:NAME_LENGTH].rstrip("-") or "no-caption"
    return f"{number:04d}-{words}-seed{seed}"


def describe(
    samples: Sequence[Sample],
    provenance: Mapping[str, Any],
    each: Sequence[Mapping[str, Any]] | None = None,
) -> list[dict[str, Any]]:
    """All that made each sample, as JSON data: what its files say.

    provenance: what all have in common: the checkpoint, sampler settings. each: what more is known
    of one, such as its prompt before expansion; it goes before what is here.
    """
    more: Sequence[Mapping[str, Any]] = [{}] * len(samples) if each is None else each
    return [
        describe_request(sample.request, sample.prompt_is_cut, sample.made_at)
        | dict(provenance)
        | dict(own)
        for sample, own in zip(samples, more, strict=True)
    ]


def describe_request(
    request: Request, prompt_is_cut: bool, made_at: tuple[int, int, int] | None = None
) -> dict[str, Any]:
    """What was asked for, as JSON data; `made_at`: the larger size that it was cut out of."""
    return {
        "task": request.task,
        "prompt": request.prompt,
        "prompt_before_expansion": request.prompt,
        "expansion": None,
        "prompt_is_cut": prompt_is_cut,
        "negative_prompt": request.negative_prompt,
        "seed": request.seed,
        "frames": request.frames,
        "height": request.height,
        "width": request.width,
        "made_at": None if made_at is None else list(made_at),
        "fps": request.fps,
        "field": _field(request),
    }


def _field(request: Request) -> dict[str, Any]:
    """What was given, and the noise level that each part of the rest was made from."""

    def digest(video: Video) -> str:
        return hashlib.sha256(video.tobytes()).hexdigest()

    return {
        "given_frames": request.given_frames,
        "given_sha256": None if request.given is None else digest(request.given),
        "kept_frames": request.kept_frames,
        "box": None if request.box is None else list(request.box),
        "is_outside": request.is_outside,
        "start_levels": list(request.start_levels),
        "given_level": request.given_level,
        "noise_of": None if request.noise_of is None else list(request.noise_of),
        "beside": [
            {"frames": len(clip.video), "seconds": clip.seconds, "sha256": digest(clip.video)}
            for clip in request.beside
        ],
    }


def write_samples(
    samples: Sequence[Sample],
    directory: Path,
    provenance: Mapping[str, Any],
    each: Sequence[Mapping[str, Any]] | None = None,
) -> list[Path]:
    """Writes MP4s (PNGs of single frames), a JSON beside each, and contact-sheet.png.

    What `describe` says of a sample is in its file and, the same, in the JSON beside it; the
    contact sheet says of which files it is. Returns the paths of the MP4s and PNGs, in order.

    Raises:
        UserError: a file cannot be written.
    """
    paths = []
    for number, (sample, said) in enumerate(
        zip(samples, describe(samples, provenance, each), strict=True)
    ):
        stem = file_stem(number, said["prompt_before_expansion"], sample.request.seed)
        if len(sample.video) == 1:
            path = directory / f"{stem}.png"
            content = encode_png(sample.video[0], as_comment(said))
        else:
            path = directory / f"{stem}.mp4"
            content = playable_mp4(sample.video, sample.request.fps, said)
        write_file(path, content)
        write_json(directory / f"{stem}.json", said)
        paths.append(path)
    clips = [(sample.request.prompt, sample.video) for sample in samples]
    shown = {"contact_sheet_of": [path.name for path in paths], **provenance}
    write_file(directory / "contact-sheet.png", contact_sheet(clips, as_comment(shown)))
    return paths


def write_view(
    directory: Path, number: int, request: Request, own: Mapping[str, Any], step: int, video: Video
) -> None:
    """Writes a strip of frames of a clip that is being made, beside where `write_samples` will
    write it as one of this number, as NAME-step-STEP.png. `own` as one of its `each`."""
    prompt = own.get("prompt_before_expansion", request.prompt)
    stem = file_stem(number, prompt, request.seed)
    content = contact_sheet([(request.prompt, video)], as_comment({"view_of": stem, "step": step}))
    write_file(directory / f"{stem}-step-{step:03d}.png", content)


def vbench_names(prompts: Sequence[str]) -> list[str]:
    """Files of videos as VBench's tool looks for them: PROMPT-NUMBER.mp4, those of a prompt
    numbered from 0 in their order."""
    counts: collections.Counter[str] = collections.Counter()
    names = []
    for prompt in prompts:
        names.append(f"{prompt}-{counts[prompt]}.mp4")
        counts[prompt] += 1
    return names


def write_for_vbench(
    samples: Sequence[Sample],
    directory: Path,
    provenance: Mapping[str, Any],
    each: Sequence[Mapping[str, Any]] | None = None,
) -> list[Path]:
    """Writes MP4s as VBench's tool looks for them, by prompts before expansion, which say what
    `describe` does and have no file beside them. Returns their paths.

    Raises:
        UserError: no file can be called by a prompt, and then none is written; or one cannot be.
    """
    described = describe(samples, provenance, each)
    names = vbench_names([said["prompt_before_expansion"] for said in described])
    for name in names:
        if "/" in name or "\0" in name or len(name.encode()) > NAME_BYTES:
            raise UserError(
                f"VBench names videos by their prompts, and no file can be called {name[:80]!r}: "
                "leave slashes out, and keep prompts below 250 bytes"
            )
    for name, sample, said in zip(names, samples, described, strict=True):
        write_file(directory / name, playable_mp4(sample.video, sample.request.fps, said))
    return [directory / name for name in names]


def contact_sheet(
    clips: Sequence[tuple[str, UInt8[np.ndarray, "t h w 3"]]], comment: str | None = None
) -> bytes:
    """PNG with a row of frames for each clip, its caption above."""
    from PIL import Image

    bands = [_band(caption, video) for caption, video in clips]
    width = max(band.width for band in bands)
    sheet = Image.new("RGB", (width, sum(band.height for band in bands) + GAP), "white")
    top = 0
    for band in bands:
        sheet.paste(band, (0, top))
        top += band.height
    return encode_png(np.asarray(sheet), comment)


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
