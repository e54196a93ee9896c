"""What the loader costs beside decoding, at a restart, over time, and on a million records.

    python -m benchmarks.loader

Every measurement is a process of its own on one core. Records are clips of 5 x 8 x 8 pixels, so
that decoding hides little. Where others use the machine the least of all turns says what the code
costs, so that is what is given. Writes benchmarks/results/loader.json.
"""

import datetime
import functools
import importlib.metadata
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.data.ledger import Ledger
from sora_jax.data.media import decode_record, encode_clip
from sora_jax.data.pipeline import Batches, Steps
from sora_jax.data.schema import LEDGER_FILE, TOKENIZER_FILE, FileEntry, Manifest
from sora_jax.data.sources import ClipSet
from sora_jax.data.tokenizer import Tokenizer

BUCKET = Bucket(5, 8, 8)
CONFIG = DataConfig((BUCKET,), (ShapeClass(64, 4),), text_length=16)
ROWS = 64
SMALL, MILLION = 20_000, 1_000_000
RECORDS_PER_SHARD = 4096
CONTENTS = 1_000  # different clips of pixels and captions; every record has an id of its own
TURNS, TURN_STEPS = 40, 10
WARM_STEPS, WATCHED_STEPS, WATCHED_ROWS = 20_000, 20_000, 8
FAR = 10**9
ASKED = {
    "overhead_microseconds": 60,
    "restart_seconds": 1,
    "open_seconds": 2,
    "records_per_second": 20_000,
    "peak_rss_mib": 1024,
}
RESULT = Path(__file__).parent / "results" / "loader.json"


def write_set(directory: Path, records: int) -> None:
    """A set as `build_set` makes them, in a tenth of the time: pixels are encoded once a content.

    Record `i` is "clip-i", has the caption "clip number i" and the pixels i, modulo CONTENTS, 256.
    """
    from array_record.python.array_record_module import ArrayRecordWriter

    directory.mkdir()
    media = [encode_clip(_pixels(number), CONFIG.fps) for number in range(CONTENTS)]
    ledger, shards = Ledger(), []
    for start in range(0, records, RECORDS_PER_SHARD):
        numbers = range(start, min(start + RECORDS_PER_SHARD, records))
        file = f"sora-{BUCKET.name}.array_record-{len(shards):05d}"
        writer = ArrayRecordWriter(str(directory / file), "group_size:1")
        for number in numbers:
            writer.write(_serialized(number, *media[number % CONTENTS]))
            name, size = f"clip-{number}", (BUCKET.frames, CONFIG.fps)
            ledger.emitted(name, name, BUCKET.name, (), *size)
        writer.close()
        shards.append(FileEntry.of(directory, file, len(numbers)))
    captions = [f"clip number {number}" for number in range(CONTENTS)]
    tokenizer = Tokenizer.train(captions, CONFIG.vocabulary_size)
    (directory / TOKENIZER_FILE).write_bytes(tokenizer.model)
    ledger.save(directory / LEDGER_FILE)
    Manifest(
        shards={BUCKET.name: tuple(shards)},
        tokenizer=FileEntry.of(directory, TOKENIZER_FILE),
        ledger=FileEntry.of(directory, LEDGER_FILE),
        ledger_counts=ledger.counts(),
    ).save(directory)


def _pixels(number: int) -> np.ndarray:
    return np.full((BUCKET.frames, BUCKET.height, BUCKET.width, 3), number % 256, np.uint8)


def _serialized(number: int, media: bytes, media_format: str) -> bytes:
    """A record as TFDS stores it."""
    from tensorflow_datasets.proto import tf_example_pb2

    example = tf_example_pb2.Example()
    feature = example.features.feature
    texts = {
        "clip_id": f"clip-{number}",
        "asset_id": f"clip-{number}",
        "caption": f"clip number {number % CONTENTS}",
        "media_format": media_format,
    }
    for name, text in texts.items():
        feature[name].bytes_list.value.append(text.encode())
    feature["media"].bytes_list.value.append(media)
    for name in ("frames", "height", "width"):
        feature[name].int64_list.value.append(getattr(BUCKET, name))
    feature["fps"].float_list.value.append(CONFIG.fps)
    return bytes(example.SerializeToString())


def overhead(directory: str) -> dict[str, float]:
    """Microseconds a record of whole batches, and of decoding and reading the same records."""
    steps = Steps(ClipSet(directory), CONFIG, [ROWS], 0)
    source = steps.clips.source(BUCKET)
    count = TURN_STEPS * ROWS
    batches = [steps[step][1] for step in range(TURN_STEPS)]
    indices = [steps.streams[0].index(p) for batch in batches for p in batch.example_id.tolist()]
    records = [source[index] for index in indices]
    cases: dict[str, Callable[[], Any]] = {
        "batches": lambda: [steps[step] for step in range(TURN_STEPS)],
        "reading_and_decoding": lambda: source.clips(indices),
        "reading": lambda: source.records(indices),
        "decoding": lambda: [decode_record(record) for record in records],
    }
    least = {name: float("inf") for name in cases}
    for _ in range(TURNS):
        for name, case in cases.items():
            least[name] = min(least[name], 1e6 * seconds(case) / count)
    return {
        **least,
        "batches_less_decoding": least["batches"] - least["decoding"],
        "batches_less_reading_and_decoding": least["batches"] - least["reading_and_decoding"],
    }


def restart(directory: str) -> dict[str, float]:
    """Seconds from a saved state at a far step to its batch."""
    fingerprint = Steps(ClipSet(directory), CONFIG, [ROWS], 0).fingerprint()

    def first_batch() -> None:
        batches = Batches(Steps(ClipSet(directory), CONFIG, [ROWS], 0))
        batches.restore({"step": FAR, "fingerprint": fingerprint})
        next(batches)
        batches.close()

    return {"opening_included": seconds(first_batch)}


def memory(directory: str) -> dict[str, float]:
    """Resident memory over many steps of the reading threads, after as many that are not watched:
    allocators go on for some thousand steps before they have all that they will keep."""
    batches = Batches(Steps(ClipSet(directory), CONFIG, [WATCHED_ROWS], 0))
    resident = []
    for step in range(WARM_STEPS + WATCHED_STEPS):
        next(batches)
        if step >= WARM_STEPS and step % 200 == 0:
            resident.append(_resident_kib())
    batches.close()
    thousands = np.arange(len(resident)) * 200 / 1000
    return {
        "kib_per_1000_steps": float(np.polyfit(thousands, resident, 1)[0]),
        "kib_first": resident[0],
        "kib_last": resident[-1],
    }


def million(directory: str) -> dict[str, float]:
    """Opening a set of a million records, and sampling from it."""
    began = time.perf_counter()
    clips = ClipSet(directory)
    opened = time.perf_counter() - began
    steps = Steps(clips, CONFIG, [ROWS], 0)

    def turn(first: int) -> None:
        for step in range(first, first + TURN_STEPS):
            steps[step]

    firsts = range(0, 5 * TURNS * TURN_STEPS, TURN_STEPS)
    turns = [seconds(functools.partial(turn, first)) for first in firsts]
    count = TURN_STEPS * ROWS
    return {
        "open_seconds": opened,
        "records_per_second": count / min(turns),
        "records_per_second_median": count / float(np.median(turns)),
        "peak_rss_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def seconds(call: Callable[[], Any]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _resident_kib() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() // 1024


def in_a_process(module: str, call: str, directory: Path) -> dict[str, float]:
    """What a benchmark's function returns, called on a directory by a fresh process on one core."""
    code = (
        "import json, os; os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})\n"
        f"from benchmarks import {module}\n"
        f"print(json.dumps({module}.{call}({str(directory)!r})))"
    )
    environment = {**os.environ, "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    """Measures, prints and writes."""
    with tempfile.TemporaryDirectory() as name:
        small, large = Path(name) / "small", Path(name) / "million"
        write_set(small, SMALL)
        found = {
            call: in_a_process("loader", call, small) for call in ("overhead", "restart", "memory")
        }
        write_set(large, MILLION)
        found["million"] = in_a_process("loader", "million", large)
        found["million"]["set_mib"] = sum(p.stat().st_size for p in large.iterdir()) / 2**20
    result = {
        "command": "python -m benchmarks.loader",
        "date": datetime.date.today().isoformat(),
        "hardware": f"one of {os.cpu_count()} CPU cores, {platform.machine()}, others in use",
        "versions": {
            "python": sys.version.split()[0],
            **{name: importlib.metadata.version(name) for name in ("grain", "array_record", "jax")},
        },
        "asked": ASKED,
        **{
            call: {key: float(f"{value:.4g}") for key, value in values.items()}
            for call, values in found.items()
        },
    }
    RESULT.write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
