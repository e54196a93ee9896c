"""A clip of any duration as an MP4: each window is a segment on disk, and a job that was stopped
goes on with the window that it was at.

Until all is made there are segments, and what the next window needs, in a folder beside the file.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sora_jax.files import write_json, writing
from sora_jax.processes import is_first, wait_for_all
from sora_jax.sample.generate import Sampler
from sora_jax.sample.long import LongRequest, Windows
from sora_jax.sample.mp4 import join_segments, write_segment
from sora_jax.sample.progress import Progress, read_json
from sora_jax.sample.video_io import describe_request, enlarged


def describe_long(windows: Windows, is_cut: bool, more: Mapping[str, Any]) -> dict[str, Any]:
    """What the file of a clip says, as that of any sample. `more`: what made it, and what else is
    known, which goes before what is here."""
    asked, made = windows.asked, windows.first
    is_whole = (made.height, made.width) == (asked.first.height, asked.first.width)
    made_at = None if is_whole else (asked.frames, made.height, made.width)
    own = describe_request(asked.first, is_cut, made_at)
    own["frames"] = asked.frames
    own["field"] |= {
        "windows": windows.count,
        "window_frames": asked.first.frames,
        "context": asked.context,
        "levels": list(windows.levels),
        "history_level": asked.history_level,
    }
    own["story"] = [list(turn) for turn in asked.story]
    return own | dict(more)


def write_long(
    sampler: Sampler,
    asked: LongRequest,
    path: Path,
    more: Mapping[str, Any],
    say: Callable[[str], None] = print,
) -> None:
    """Makes a clip, and writes it as an MP4 at `path` with a JSON beside it. Every process calls
    it, and sees the same files.

    Args:
        more: as `describe_long` has it.
        say: is told what is done, in lines.

    Raises:
        RequestError: it cannot be made.
        UserError: `path` has parts of another clip, or cannot be written.
    """
    windows, first = Windows(sampler, asked), asked.first
    prompts = [first.prompt, *(prompt for _, prompt in asked.story)]
    is_cut = any(sampler.captions.length(prompt) > sampler.text_length for prompt in prompts)
    said = describe_long(windows, is_cut, more)
    folder, sidecar = path.with_name(f"{path.name}.parts"), path.with_suffix(".json")
    tell = say if is_first() else _nothing
    if path.exists() and read_json(sidecar) == said:
        tell(f"{path}: is there already")
        wait_for_all(f"have seen {path}")
        if is_first():
            shutil.rmtree(folder, ignore_errors=True)
        return
    if is_cut:
        tell(f"{path}: cut to the {sampler.text_length} tokens that the run reads: a prompt")
    progress = Progress(folder, said)
    if progress.parts:
        tell(f"{path}: goes on after window {progress.parts}")
    made = progress.resumed(windows.begin) if progress.parts else None
    for number in range(progress.parts, windows.count):
        video, made = windows(number, made)
        shown = enlarged(video)
        segment = progress.part(number, ".mp4")
        with write_segment(segment, first.fps, *shown.shape[1:3]) as write:
            write(shown)
        progress.keep(made)
        tell(f"{path}: {windows.before(number + 1)} of {asked.frames} frames")
    segments = [
        (progress.part(number, ".mp4"), windows.before(number + 1) - windows.before(number))
        for number in range(windows.count)
    ]
    if is_first():
        with writing(path) as partial:
            join_segments(segments, partial, first.fps, said)
        write_json(sidecar, said)
    progress.remove()
    wait_for_all(f"made {path}")


def _nothing(line: str) -> None:
    pass
