"""A suite: clips to score a model on, and how; scored shard by shard, in any number of processes.

A shard is a batch of clips of one size, and is kept once it is scored: what a kill leaves undone is
all that is done again. Which clips make a shard follows from the clips alone, so that processes,
devices and restarts change nothing.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import numpy as np
from jaxtyping import UInt8

from sora_jax.eval.clip_scores import Score, joined, summary
from sora_jax.eval.examples import Example

Video = UInt8[np.ndarray, "t h w 3"]


@dataclasses.dataclass(frozen=True)
class Found:
    """What was found of n clips: scores, other arrays with a row for each, and clips to look at: by
    label, and by the place of the example in its suite."""

    scores: Mapping[str, Score] = dataclasses.field(default_factory=dict)
    arrays: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    clips: Mapping[str, Mapping[int, Video]] = dataclasses.field(default_factory=dict)

    def first(self, count: int) -> "Found":
        """Of the first so many clips; those to look at stay."""
        scores = {n: Score(s.values[:count], s.weights[:count]) for n, s in self.scores.items()}
        return Found(scores, {n: each[:count] for n, each in self.arrays.items()}, self.clips)

    def ordered(self, order: Sequence[int]) -> "Found":
        """With the clips in another order; those to look at have places already."""
        index = np.asarray(order)
        scores = {n: Score(s.values[index], s.weights[index]) for n, s in self.scores.items()}
        return Found(scores, {n: each[index] for n, each in self.arrays.items()}, self.clips)


@dataclasses.dataclass(frozen=True)
class Suite:
    """`find` is given places in `examples`, and called by all processes. `further` makes metrics of
    what is no score of single clips, in one process. `settings` are what a question depends on
    beside the examples, such as noise levels; answers to other questions cannot be compared."""

    name: str
    examples: Sequence[Example]
    find: Callable[[Sequence[int]], Found]
    further: Callable[[Found], Mapping[str, float]] = lambda found: {}
    settings: str = ""

    def question(self) -> str:
        """12 hex digits of what is asked, of whatever model."""
        words = f"{self.name}\0{self.settings}\0{examples_id(self.examples)}"
        return hashlib.sha256(words.encode()).hexdigest()[:12]


def examples_id(examples: Sequence[Example]) -> str:
    """12 hex digits of all that examples are."""
    content = hashlib.sha256()
    for each in examples:
        content.update(f"{each.prompt}\0{each.fps}\0{each.seed}\0{each.video.shape}\0".encode())
        content.update(np.ascontiguousarray(each.video).data)
    return content.hexdigest()[:12]


class Store(Protocol):
    """Where shards are kept."""

    def finished(self, suite: str, shards: int) -> set[int]:
        """Those that need not be scored again, the same in all processes; all call it."""

    def keep(self, suite: str, shard: int, found: Found) -> None:
        """Keeps what was found; all processes call it."""

    def read(self, suite: str, shard: int) -> Found:
        """What was kept."""

    def publish(self, suite: Suite, found: Found) -> None:
        """Keeps the whole of a suite, for others to read; one process calls it."""


class Memory:
    """Keeps shards while the process lives."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int], Found] = {}

    def finished(self, suite: str, shards: int) -> set[int]:
        return {shard for shard in range(shards) if (suite, shard) in self._found}

    def keep(self, suite: str, shard: int, found: Found) -> None:
        self._found[suite, shard] = found

    def read(self, suite: str, shard: int) -> Found:
        return self._found[suite, shard]

    def publish(self, suite: Suite, found: Found) -> None:
        pass  # there are no others


def placed(
    places: Sequence[int], columns: Mapping[str, Sequence[Video]]
) -> dict[str, dict[int, Video]]:
    """Clips by label and place, of columns of clips in the order of the places."""
    return {label: dict(zip(places, videos, strict=True)) for label, videos in columns.items()}


def shards_of(examples: Sequence[Example], rows: int) -> list[list[int]]:
    """Places of the clips of each shard: at most `rows` of one size, as even as can be."""
    sizes: dict[tuple[int, ...], list[int]] = {}
    for place, example in enumerate(examples):
        sizes.setdefault(example.video.shape, []).append(place)
    shards = []
    for places in sizes.values():
        even = -(-len(places) // -(-len(places) // rows))
        shards += [places[start : start + even] for start in range(0, len(places), even)]
    return shards


def score(suite: Suite, rows: int, store: Store, shown: int) -> None:
    """Scores what the store lacks, `rows` clips at a time, and keeps `shown` clips to look at.

    The last shard of a size is filled up by repeating its last clip, so that a size has one
    program; what is found of the repeated ones is dropped.
    """
    shards = shards_of(suite.examples, rows)
    finished = store.finished(suite.name, len(shards))
    missing = [number for number in range(len(shards)) if number not in finished]
    if not missing:
        return
    clips = sum(len(shards[number]) for number in missing)
    print(f"{suite.name}: {clips} of {len(suite.examples)} clips to score", flush=True)
    sizes = {suite.examples[places[0]].video.shape: len(places) for places in reversed(shards)}
    for number in missing:
        places = shards[number]
        most = sizes[suite.examples[places[0]].video.shape]
        found = suite.find([*places, *places[-1:] * (most - len(places))]).first(len(places))
        kept = {
            label: {place: clip for place, clip in clips.items() if place < shown}
            for label, clips in found.clips.items()
        }
        store.keep(suite.name, number, dataclasses.replace(found, clips=kept))


def collect(suite: Suite, rows: int, store: Store) -> Found:
    """What was found of all clips of a suite that is scored, in the order of its examples."""
    shards = shards_of(suite.examples, rows)
    parts = [store.read(suite.name, number) for number in range(len(shards))]
    names = dict.fromkeys(name for part in parts for name in part.arrays)
    labels = dict.fromkeys(label for part in parts for label in part.clips)
    whole = Found(
        joined([part.scores for part in parts]),
        {name: np.concatenate([part.arrays[name] for part in parts]) for name in names},
        {
            label: {k: v for part in parts for k, v in part.clips.get(label, {}).items()}
            for label in labels
        },
    )
    return whole.ordered(np.argsort([place for places in shards for place in places]).tolist())


def metrics_of(suite: Suite, found: Found) -> dict[str, float]:
    """All metrics of a suite by name: means over clips with their intervals, and further ones."""
    return {**summary(found.scores), **suite.further(found)}
