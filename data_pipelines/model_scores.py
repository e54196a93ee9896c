"""Scores and embeddings by a model, in batches over the clips of a worker: aesthetics, safety.

    python -m data_pipelines.analyse --source ... --output TABLE --model my_models:aesthetics

`my_models.aesthetics()` makes a `ModelScore`. Models see a few pictures of a clip, of 224 x 224
pixels; what they give is averaged over these. Pictures pass from the transform that measures to the
one that asks the model, which runners keep in one worker: they are never shuffled.
"""

import dataclasses
import functools
import importlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

import apache_beam as beam
import numpy as np
from apache_beam.transforms.window import GlobalWindow
from apache_beam.utils.windowed_value import WindowedValue
from jaxtyping import Float, UInt8

from data_pipelines.shots import Clip
from data_pipelines.table import Row
from sora_jax.errors import ConfigError

SIDE = 224  # of a picture, what image encoders are trained on; others resize
PICTURES = 3  # of a clip, evenly spaced
NO_PICTURES = np.zeros((0, SIDE, SIDE, 3), np.uint8)


@dataclasses.dataclass(frozen=True)
class Judged:
    """What a model says of a batch of pictures."""

    numbers: Mapping[str, Float[np.ndarray, " b"]] = dataclasses.field(default_factory=dict)
    embedding: Float[np.ndarray, "b d"] | None = None


class ModelScore(Protocol):
    """A model that looks at pictures. Making one is cheap; `setup` loads what it needs."""

    name: str
    version: int
    batch: int  # pictures at a time, always so many, so that a step is compiled once
    numbers: tuple[str, ...]  # that it gives, a column score_NAME each
    embeds: bool

    def setup(self) -> None:
        """Loads weights, once in a process, before the first call."""

    def __call__(self, pictures: UInt8[np.ndarray, "b h w 3"]) -> Judged: ...


def make(place: str) -> ModelScore:
    """What the function at MODULE:FUNCTION makes, not set up.

    Raises:
        ConfigError: there is no such function.
    """
    module, _, function = place.partition(":")
    try:
        made: ModelScore = getattr(importlib.import_module(module), function)()
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"--model {place!r} cannot be made ({error}): give MODULE:FUNCTION, a function without "
            "arguments of a module that Python finds"
        ) from error
    return made


def versions(places: tuple[str, ...], others: Mapping[str, int]) -> dict[str, int]:
    """Versions of all scores: others, and the numbers that models at these places give.

    Raises:
        ConfigError: two scores have one name, or two models embed.
    """
    models = [make(place) for place in places]
    found = dict(others)
    for model in models:
        for number in model.numbers:
            if number in found:
                raise ConfigError(
                    f"two scores are named {number}: leave one --model out, or rename"
                )
            found[number] = model.version
    if sum(model.embeds for model in models) > 1:
        raise ConfigError("two models embed, and a table has room for one: leave one --model out")
    return found


def chosen(clip: Clip) -> UInt8[np.ndarray, "n h w 3"]:
    """The middle square of a few pictures of a clip."""
    import cv2

    last = len(clip.pictures) - 1
    at = np.unique(np.linspace(0, last, PICTURES + 2).round().astype(int)[1:-1])
    pictures = []
    for picture in clip.pictures[at]:
        height, width = picture.shape[:2]
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        square = np.ascontiguousarray(picture[top : top + side, left : left + side])
        how = cv2.INTER_AREA if side > SIDE else cv2.INTER_LINEAR
        pictures.append(cv2.resize(square, (SIDE, SIDE), interpolation=how))
    return np.stack(pictures)


class AskModel(beam.DoFn):
    """(row, its pictures) -> the same with what a model says in the row."""

    def __init__(self, place: str) -> None:
        self._place = place

    def setup(self) -> None:
        self._model = _set_up(self._place)

    def start_bundle(self) -> None:
        self._waiting: list[tuple[Row, np.ndarray]] = []

    def process(self, found: tuple[Row, np.ndarray]) -> Iterator[tuple[Row, np.ndarray]]:
        if found[0].problem:
            yield found
            return
        # Before a clip that would not fit: what is over would cost a batch of its own.
        if sum(len(each) for _, each in self._waiting) + len(found[1]) > self._model.batch:
            yield from self._told()
        self._waiting.append(found)

    def finish_bundle(self) -> Iterator[Any]:
        for found in self._told():
            window = GlobalWindow()
            yield WindowedValue(found, window.max_timestamp(), (window,))

    def _told(self) -> Iterator[tuple[Row, np.ndarray]]:
        waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        judged = in_batches(self._model, np.concatenate([pictures for _, pictures in waiting]))
        ends = np.cumsum([len(pictures) for _, pictures in waiting])
        for (row, pictures), end in zip(waiting, ends, strict=True):
            part = slice(end - len(pictures), end)
            numbers = {name: float(of[part].mean()) for name, of in judged.numbers.items()}
            row = dataclasses.replace(row, scores={**row.scores, **numbers})
            if judged.embedding is not None:
                mean = judged.embedding[part].mean(0)
                unit = (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype("<f4")
                row = dataclasses.replace(row, embedding=unit.tobytes())
            yield row, pictures


def in_batches(model: ModelScore, pictures: UInt8[np.ndarray, "n h w 3"]) -> Judged:
    """What a model says of any number of pictures, the last batch filled up with black.

    Raises:
        ValueError: it gives something else than it promises.
    """
    parts = []
    for start in range(0, len(pictures), model.batch):
        batch = pictures[start : start + model.batch]
        missing = model.batch - len(batch)
        judged = model(np.pad(batch, ((0, missing), (0, 0), (0, 0), (0, 0))))
        if set(judged.numbers) != set(model.numbers) or model.embeds == (judged.embedding is None):
            raise ValueError(
                f"model {model.name} gave {sorted(judged.numbers)}, embedding "
                f"{judged.embedding is not None}: not what its numbers and embeds promise"
            )
        parts.append((judged, len(batch)))
    return Judged(
        {
            name: np.concatenate(
                [np.asarray(judged.numbers[name])[:size] for judged, size in parts]
            )
            for name in model.numbers
        },
        np.concatenate([np.asarray(judged.embedding)[:size] for judged, size in parts])
        if model.embeds
        else None,
    )


@functools.cache
def _set_up(place: str) -> ModelScore:
    """One for all threads of a process: weights are large."""
    model = make(place)
    model.setup()
    return model
