"""A folder of videos and images with sidecar captions -> clips of the buckets' sizes."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sora_jax.data.buckets import Bucket, DataConfig, nearest_size, split_lengths
from sora_jax.data.build import SourceClip
from sora_jax.data.footage import MediaError, Scan, read_frames, read_image, scan_video
from sora_jax.data.ledger import Ledger
from sora_jax.data.schema import DataError, file_sha256
from sora_jax.data.transforms import fit, fit_changes

VIDEO_SUFFIXES = (".mp4", ".mov", ".webm")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png")
CAPTION_SUFFIXES = (".txt", ".json")


@dataclasses.dataclass(frozen=True)
class _Cut:
    """A clip to be taken out of a video."""

    start: int
    frames: int
    size: tuple[int, int]
    changes: tuple[str, ...]


def folder_clips(folder: Path | str, config: DataConfig, ledger: Ledger) -> Iterator[SourceClip]:
    """Clips of every usable file below a folder, in the order of their paths.

    A caption is the text of `name.txt`, or "caption" in `name.json`, beside the media `name.*`.
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
            caption = read_caption(path)
            asset = file_sha256(path)
            if asset in seen:
                raise MediaError(path, "duplicate", f"same bytes as {seen[asset]}")
            seen[asset] = source
            read = _video_clips if suffix in VIDEO_SUFFIXES else _image_clips
            yield from read(path, source, asset, caption, config, ledger)
        except MediaError as error:
            ledger.dropped(source, error.reason, error.detail)


def read_caption(path: Path) -> str:
    """Caption of a media file from its sidecar, with runs of white space made one space.

    Raises:
        MediaError: there is none, or it is empty, not UTF-8, or not JSON with a "caption".
    """
    sidecars = [path.with_suffix(suffix) for suffix in CAPTION_SUFFIXES]
    sidecar = next((sidecar for sidecar in sidecars if sidecar.is_file()), None)
    if sidecar is None:
        raise MediaError(path, "no caption", f"expected {sidecars[0].name} or {sidecars[1].name}")
    try:
        text = sidecar.read_text(encoding="utf-8-sig")
        if sidecar.suffix == ".json":
            text = json.loads(text)["caption"]
        caption = " ".join(text.split())
    except UnicodeDecodeError as error:
        raise MediaError(path, "caption is not UTF-8", f"{sidecar.name}: {error.reason}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise MediaError(
            path, "caption cannot be read", f'{sidecar.name} is not like {{"caption": "text"}}'
        ) from error
    if not caption:
        raise MediaError(path, "caption is empty", sidecar.name)
    return caption


def _image_clips(
    path: Path, source: str, asset: str, caption: str, config: DataConfig, ledger: Ledger
) -> Iterator[SourceClip]:
    del ledger  # an image has no parts to tell of
    image = read_image(path)
    height, width = image.shape[:2]
    size = nearest_size(height, width, [b for b in config.buckets if b.frames == 1])
    if size is None:
        raise MediaError(path, "too small", f"{height}x{width} is below every image bucket")
    changes = fit_changes(height, width, size)
    video = fit(image, size)[None]
    # An image has no duration; its rate is of no effect, and 1 keeps seconds finite.
    yield SourceClip(_clip_id(asset, 0, 1), asset, caption, video, 1.0, source, changes)


def _video_clips(
    path: Path, source: str, asset: str, caption: str, config: DataConfig, ledger: Ledger
) -> Iterator[SourceClip]:
    scan = scan_video(path)
    shots = scan.shots()
    if len(shots) > 1:
        ledger.note(source, f"cut into {len(shots)} shots, at frames {_list(scan.cuts)}")
    if scan.variable_rate:
        ledger.note(source, f"variable frame rate, taken as its average of {scan.fps:g}")
    cuts = [cut for shot in shots for cut in _plan(scan, shot, config.buckets, source, ledger)]
    frames, position = read_frames(path), 0
    for cut in cuts:
        end = cut.start + cut.frames
        for _ in range(cut.start - position):
            next(frames)
        video = np.stack([fit(next(frames), cut.size) for _ in range(cut.frames)])
        position = end
        clip_id = _clip_id(asset, cut.start, end)
        yield SourceClip(clip_id, asset, caption, video, scan.fps, source, cut.changes)


def _plan(
    scan: Scan, shot: tuple[int, int], buckets: Sequence[Bucket], source: str, ledger: Ledger
) -> list[_Cut]:
    """Which clips to take out of a shot; what is left of it goes to the ledger."""
    start, end = shot
    shot_name = f"frames {start} to {end}"
    long_enough = [bucket for bucket in buckets if 1 < bucket.frames <= end - start]
    images = [bucket for bucket in buckets if bucket.frames == 1]
    if not long_enough and not images:
        ledger.dropped(source, "too short", f"{shot_name}: shorter than every bucket")
        return []
    size = nearest_size(scan.height, scan.width, long_enough or images)
    if size is None:
        dimensions = f"{scan.height}x{scan.width}"
        ledger.dropped(source, "too small", f"{shot_name}: {dimensions} is below every bucket")
        return []
    resized = fit_changes(scan.height, scan.width, size)
    if not long_enough:
        short = f"frame {start} as an image: {end - start} frames are too few for a video bucket"
        return [_Cut(start, 1, size, (short, *resized))]
    cuts = []
    durations = [b.frames for b in long_enough if (b.height, b.width) == size]
    for frames in split_lengths(end - start, durations):
        part = f"frames {start} to {start + frames} of {scan.frames}"
        cuts.append(_Cut(start, frames, size, (part,) * (frames < scan.frames) + resized))
        start += frames
    if start < end:
        ledger.note(source, f"{end - start} frames left over at the end of {shot_name}")
    return cuts


def _clip_id(asset: str, start: int, end: int) -> str:
    return f"{asset[:16]}-{start:06d}-{end:06d}"


def _list(numbers: Sequence[int]) -> str:
    return ", ".join(str(number) for number in numbers)
