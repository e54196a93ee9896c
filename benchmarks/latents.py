"""How many times faster the loader gives latents than it decodes the clips they are of.

    python -m benchmarks.latents

Clips are 33 frames of 256 x 256 pixels, in H.264 as sets hold them: moving gratings, whose lack of
grain makes them quick to decode. Latents are of 9 x 32 x 32 cells of 16 channels, mean and
log-variance, of which training takes the mean; their numbers are drawn, for no network takes part.
Both sets are read by whole batches in one process on one core, in turns; where others use the
machine the least of all turns says what the code costs. Writes benchmarks/results/latents.json.
"""

import datetime
import functools
import importlib.metadata
import json
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from benchmarks.loader import in_a_process, seconds
from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.data.build import SourceClip, build_set
from sora_jax.data.encode import BucketWork, LatentSet
from sora_jax.data.latents import BFLOAT16
from sora_jax.data.once import Stripes
from sora_jax.data.pipeline import Steps
from sora_jax.data.schema import Encoding
from sora_jax.data.sources import ClipSet
from sora_jax.models.latents import LatentStatistics, stored_tokens

BUCKET = Bucket(33, 256, 256)
LATENTS = (9, 32, 32, 16)
PATCH = 2
CONFIG = DataConfig((BUCKET,), (ShapeClass(8, 9 * 16 * 16),))
CLIPS, ROWS = 32, 8
TURNS = 12
ASKED = {"ratio": 40}
RESULT = Path(__file__).parent / "results" / "latents.json"


def clips() -> Iterator[SourceClip]:
    y, x = np.mgrid[: BUCKET.height, : BUCKET.width].astype(np.float32)
    time = np.arange(BUCKET.frames, dtype=np.float32)[:, None, None]
    for number in range(CLIPS):
        generator = np.random.default_rng(number)
        layers = []
        for _ in range(3):
            across, down, rate = generator.uniform(-0.2, 0.2, 3)
            layers.append(128 + 90 * np.sin(across * x + down * y + 3 * rate * time))
        pixels = np.clip(np.stack(layers, -1), 0, 255).astype(np.uint8)
        yield SourceClip(f"clip-{number}", f"clip-{number}", f"gratings {number}", pixels, 8.0)


def write_sets(directory: Path) -> None:
    """The set of clips, and that of latents."""
    build_set(clips(), directory / "clips", CONFIG)
    found = ClipSet(directory / "clips")
    generator = np.random.default_rng(0)

    def encode(video: np.ndarray) -> object:
        drawn = [generator.normal(size=LATENTS).astype(BFLOAT16) for _ in 2 * list(video)]
        return lambda: (drawn[: len(video)], drawn[len(video) :])

    work = BucketWork(Stripes(BUCKET, CLIPS, ROWS, CLIPS), range(ROWS), range(ROWS), encode)
    encoding = Encoding(found.manifest.id, "drawn", LATENTS[-1])
    latents = LatentSet(found, directory / "latents", encoding, [work])
    latents.write(latents.missing(), 0, None)
    latents.finish(None)


def compare(directory: str) -> dict[str, float]:
    """Clips a second from either set, as batches ready for devices; one turn is every clip once."""
    statistics = LatentStatistics(np.zeros(16, np.float32), np.ones(16, np.float32))
    tokens = functools.partial(stored_tokens, statistics, PATCH)
    steps = {
        "decoding": Steps(ClipSet(f"{directory}/clips"), CONFIG, [ROWS], 0),
        "latents": Steps(ClipSet(f"{directory}/latents"), CONFIG, [ROWS], 0, tokens=tokens),
    }
    least = dict.fromkeys(steps, float("inf"))
    for _ in range(TURNS):
        for name, each in steps.items():
            least[name] = min(least[name], seconds(functools.partial(_epoch, each)))
    rates = {f"{name}_clips_per_second": CLIPS / value for name, value in least.items()}
    return {"ratio": least["decoding"] / least["latents"], **rates}


def _epoch(steps: Steps) -> None:
    for step in range(CLIPS // ROWS):
        steps[step]


def main() -> None:
    """Measures, prints and writes."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_sets(directory)
        found = in_a_process("latents", "compare", directory)
        sizes = {
            f"{each}_kib_per_clip": sum(path.stat().st_size for path in shards) / CLIPS / 2**10
            for each in ("clips", "latents")
            if (shards := list((directory / each).glob("*array_record*")))
        }
    result = {
        "command": "python -m benchmarks.latents",
        "date": datetime.date.today().isoformat(),
        "hardware": f"one of {os.cpu_count()} CPU cores, {platform.machine()}, others in use",
        "versions": {
            "python": sys.version.split()[0],
            **{name: importlib.metadata.version(name) for name in ("array_record", "av", "jax")},
        },
        "asked": ASKED,
        **{key: float(f"{value:.4g}") for key, value in (found | sizes).items()},
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
