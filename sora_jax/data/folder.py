"""A folder of videos and images with sidecar captions -> clips of the buckets' sizes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sora_jax.data.buckets import DataConfig
from sora_jax.data.build import SourceClip
from sora_jax.data.cuts import Cut, plan, taken
from sora_jax.data.footage import MediaError, Scan, read_frames, read_image, scan_video
from sora_jax.data.ledger import Ledger
from sora_jax.data.schema import DataError, file_sha256

VIDEO_SUFFIXES = (".mp4", ".mov", ".webm")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
CAPTION_SUFFIXES = (".txt", ".json")


def folder_clips(folder: Path | str, config: DataConfig, ledger: Ledger) -> Iterator[SourceClip]:
    """Clips of every usable file below a folder, in the order of their paths.

    A caption is the text of `name.txt`, or "caption" in `name.json`, beside the media `name.*`; the
    latter may have "captions" of other kinds, by kind.
    Videos are split at cuts, and shots into consecutive clips of the buckets' durations. Each is
    cropped and resized once, to the bucket size nearest in aspect that needs no upscaling.
    Everything that is not used is in the ledger with the reason.

    Raises:
        DataError: the folder does not exist or holds no file.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder} is not a folder")
    # Listed before anything is written, for the set may be built inside the folder.
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    if not paths:
        raise DataError(f"{folder} holds no file")
    return _clips(folder, paths, config, ledger)


def _clips(
    folder: Path, paths: list[Path], config: DataConfig, ledger: Ledger
) -> Iterator[SourceClip]:
    media_suffixes = VIDEO_SUFFIXES + IMAGE_SUFFIXES
    media_stems = {p.with_suffix("") for p in paths if p.suffix.lower() in media_suffixes}
    seen: dict[str, str] = {}
    for path in paths:
        source, suffix = str(path.relative_to(folder)), path.suffix.lower()
        if suffix in CAPTION_SUFFIXES:
            if path.with_suffix("") not in media_stems:
                ledger.dropped(source, "caption without media")
            continue
        if suffix not in media_suffixes:
            ledger.dropped(source, "unsupported kind of file", suffix)
            continue
        try:
            captions = read_captions(path)
            asset = file_sha256(path)
            if asset in seen:
                raise MediaError(path, "duplicate", f"same bytes as {seen[asset]}")
            seen[asset] = source
            yield from _media_clips(path, source, asset, captions, config, ledger)
        except MediaError as error:
            ledger.dropped(source, error.reason, error.detail)


def read_captions(path: Path) -> dict[str, str]:
    """Captions of a media file by kind, "given" first, from its sidecar, with runs of white space
    made one space.

    Raises:
        MediaError: there is none, or it is empty, not UTF-8, or not JSON with a "caption".
    """
    sidecars = [path.with_suffix(suffix) for suffix in CAPTION_SUFFIXES]
    sidecar = next((sidecar for sidecar in sidecars if sidecar.is_file()), None)
    if sidecar is None:
        raise MediaError(path, "no caption", f"expected {sidecars[0].name} or {sidecars[1].name}")
    try:
        text = sidecar.read_text(encoding="utf-8-sig")
        told: Any = json.loads(text) if sidecar.suffix == ".json" else {"caption": text}
        found: dict[str, str] = {"given": told["caption"], **told.get("captions", {})}
        captions = {kind: " ".join(text.split()) for kind, text in found.items()}
    except UnicodeDecodeError as error:
        raise MediaError(path, "caption is not UTF-8", f"{sidecar.name}: {error.reason}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MediaError(
            path, "caption cannot be read", f'{sidecar.name} is not like {{"caption": "text"}}'
        ) from error
    if not captions["given"]:
        raise MediaError(path, "caption is empty", sidecar.name)
    return {kind: text for kind, text in captions.items() if text}


def _media_clips(
    path: Path,
    source: str,
    asset: str,
    captions: dict[str, str],
    config: DataConfig,
    ledger: Ledger,
) -> Iterator[SourceClip]:
    if path.suffix.lower() in VIDEO_SUFFIXES:
        scan = scan_video(path)
        fps, frames, cuts = scan.fps, read_frames(path), _cuts(scan, config, source, ledger)
    else:
        image = read_image(path)
        height, width = image.shape[:2]
        # An image has no duration; its rate is of no effect, and 1 keeps seconds finite.
        fps, found = 1.0, plan(0, 1, (height, width), config, of=1)
        if found.dropped:
            raise MediaError(path, *found.dropped)
        frames, cuts = iter([image]), list(found.cuts)
    for cut, video in zip(cuts, taken(frames, cuts), strict=True):
        clip_id = f"{asset[:16]}-{cut.start:06d}-{cut.start + cut.frames:06d}"
        yield SourceClip(
            clip_id,
            asset,
            captions["given"],
            video,
            fps,
            source,
            cut.changes,
            duration=cut.duration,
            captions=captions if len(captions) > 1 else {},
        )


def _cuts(scan: Scan, config: DataConfig, source: str, ledger: Ledger) -> list[Cut]:
    """Which clips to take out of a video; what is left of it goes to the ledger."""
    shots = scan.shots()
    if len(shots) > 1:
        cut_at = ", ".join(map(str, scan.cuts))
        ledger.note(source, f"cut into {len(shots)} shots, at frames {cut_at}")
    if scan.variable_rate:
        ledger.note(source, f"variable frame rate, taken as its average of {scan.fps:g}")
    cuts: list[Cut] = []
    for start, end in shots:
        size = (scan.height, scan.width)
        found = plan(start, end - start, size, config, of=scan.frames)
        cuts += found.cuts
        if found.dropped:
            ledger.dropped(source, *found.dropped)
        if found.left_over:
            ledger.note(
                source, f"{found.left_over} frames left over at the end of frames {start} to {end}"
            )
    return cuts
