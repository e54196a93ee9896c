"""Shards of an evaluation on disk, so that one that was killed goes on, and the whole beside them.

    <place>/<suite>.npz                     what was found, once all is scored: for comparisons
    <place>/shards/<suite>-<key>/00000.npz  of each shard; the key is of the question and the model

Files are written whole by process 0. A damaged one counts as not there.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sora_jax.errors import ConfigError
from sora_jax.eval.clip_scores import Score
from sora_jax.eval.suite import Found, Suite, Video
from sora_jax.files import write_file
from sora_jax.processes import gathered, is_first

VERSION = 1
DAMAGED = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)


class DiskStore:
    """What was found of one model, in a directory that all processes see.

    `model`: all that answers depend on beside the suite: checkpoint, how it is sampled, the code.
    `suites`: those that are scored.
    """

    def __init__(self, directory: Path, model: str, suites: Sequence[Suite]):
        self.directory = directory
        self._questions = {suite.name: suite.question() for suite in suites}
        keys = {
            name: hashlib.sha256(f"{VERSION}\0{question}\0{model}".encode()).hexdigest()[:12]
            for name, question in self._questions.items()
        }
        self._folders = {n: directory / "shards" / f"{n}-{key}" for n, key in keys.items()}

    def finished(self, suite: str, shards: int) -> set[int]:
        whole = [shard for shard in range(shards) if is_first() and self._is_whole(suite, shard)]
        return set(json.loads(gathered(json.dumps(whole))[0]))

    def keep(self, suite: str, shard: int, found: Found) -> None:
        if is_first():
            write_file(self._path(suite, shard), packed(found))

    def read(self, suite: str, shard: int) -> Found:
        return unpacked(self._path(suite, shard).read_bytes())

    def publish(self, suite: Suite, found: Found) -> None:
        """Writes the whole of a suite, with its question and the prompts of what is shown."""
        shown = sorted({place for clips in found.clips.values() for place in clips})
        heading = {
            "version": VERSION,
            "question": self._questions[suite.name],
            "prompts": {place: suite.examples[place].prompt for place in shown},
            "fps": {place: suite.examples[place].fps for place in shown},
        }
        write_file(self.place(suite.name), packed(found, heading))

    def place(self, suite: str) -> Path:
        """Where the whole of a suite is published."""
        return self.directory / f"{suite}.npz"

    def _path(self, suite: str, shard: int) -> Path:
        return self._folders[suite] / f"{shard:05}.npz"

    def _is_whole(self, suite: str, shard: int) -> bool:
        with contextlib.suppress(*DAMAGED):
            self.read(suite, shard)
            return True
        return False


@dataclasses.dataclass(frozen=True)
class Published:
    """What was found of a suite, and what it was asked: equal questions can be compared. `prompts`
    and `fps` are of the clips to look at, by place."""

    found: Found
    question: str
    prompts: Mapping[int, str]
    fps: Mapping[int, float]


def read_published(path: Path) -> Published:
    """A suite that was published.

    Raises:
        ConfigError: the file is damaged or of another version.
    """
    try:
        content = path.read_bytes()
        with np.load(io.BytesIO(content)) as arrays:
            heading = json.loads(str(arrays["heading"]))
        if heading["version"] != VERSION:
            raise ValueError(f"it is of version {heading['version']}, this code's is {VERSION}")
        return Published(
            unpacked(content),
            heading["question"],
            {int(place): prompt for place, prompt in heading["prompts"].items()},
            {int(place): fps for place, fps in heading["fps"].items()},
        )
    except DAMAGED as error:
        raise ConfigError(f"cannot read {path} ({error}): evaluate again") from error


def packed(found: Found, heading: Mapping[str, object] | None = None) -> bytes:
    """As the content of an .npz file."""
    arrays: dict[str, np.ndarray] = {"heading": np.array(json.dumps(heading or {}))}
    for name, score in found.scores.items():
        arrays[f"value {name}"], arrays[f"weight {name}"] = score.values, score.weights
    for name, array in found.arrays.items():
        arrays[f"array {name}"] = array
    for label, clips in found.clips.items():
        for place, clip in clips.items():
            arrays[f"clip {place} {label}"] = clip
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def unpacked(content: bytes) -> Found:
    """Inverse of `packed`, without the heading; raises one of DAMAGED."""
    scores: dict[str, Score] = {}
    arrays: dict[str, np.ndarray] = {}
    clips: dict[str, dict[int, Video]] = {}
    with np.load(io.BytesIO(content)) as file:
        for key in file.files:
            kind, _, name = key.partition(" ")
            if kind == "value":
                scores[name] = Score(file[key], file[f"weight {name}"])
            elif kind == "array":
                arrays[name] = file[key]
            elif kind == "clip":
                place, _, label = name.partition(" ")
                clips.setdefault(label, {})[int(place)] = file[key]
    return Found(scores, arrays, clips)
