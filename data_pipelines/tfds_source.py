"""Encoded images and videos of a prepared TFDS set, by the number of their record."""

import functools
from collections.abc import Iterator
from typing import Any

import numpy as np

from data_pipelines.assets import Asset
from data_pipelines.sources import SourceError, with_facts

CAPTIONS = ("caption", "text")  # the feature that serves as one, the first that is there
IMAGES = {b"\x89PNG": "png", b"\xff\xd8\xff": "jpg", b"RIFF": "webp"}  # how their bytes begin


def check(place: str) -> None:
    """Makes sure that DIR#SPLIT#FEATURE can be read.

    Raises:
        SourceError: the place has another form, or the set, split or feature is not there.
    """
    parts = place.split("#")
    if len(parts) != 3:
        raise SourceError(f"--source tfds:{place} is not of the form tfds:DIR#SPLIT#FEATURE")
    try:
        _, features = _records(f"tfds:{place}")
    except Exception as error:  # a different one for every part that may be missing
        problem = (str(error) or type(error).__name__).splitlines()[0]
        raise SourceError(f"--source tfds:{place} cannot be read: {problem}") from error
    if parts[2] not in features:
        raise SourceError(
            f"--source tfds:{place}: {parts[0]} has no feature {parts[2]!r}, only "
            + ", ".join(features)
        )


def listed(place: str) -> Iterator[Asset]:
    """An asset for every record of DIR#SPLIT#FEATURE, with the features that are text or numbers
    as what is told of it."""
    url = f"tfds:{place}"
    feature = place.split("#")[-1]
    records, features = _records(url)
    kept = [name for name in features if name != feature]
    for number in range(len(records)):
        record = records[number]
        facts = {
            name: record[name].item() if isinstance(record[name], np.generic) else record[name]
            for name in kept
            if isinstance(record[name], str | bytes | int | float | np.generic)
        }
        caption = next((facts.pop(name) for name in CAPTIONS if name in facts), None)
        name = f"{place}/{number:09d}.{_suffix(record[feature])}"
        asset = Asset(url=url, name=name, record=number)
        yield with_facts(asset, facts | {"caption": caption})


def _suffix(media: Any) -> str:
    """By the bytes, which have no name in a set that tells what they are."""
    begins = media[:4] if isinstance(media, bytes) else b""
    return next((suffix for magic, suffix in IMAGES.items() if begins.startswith(magic)), "mp4")


def record_bytes(url: str, number: int) -> bytes:
    """The encoded media of a record."""
    value = _records(url)[0][number][url.split("#")[-1]]
    if not isinstance(value, bytes):
        raise OSError(f"{url} record {number} holds no encoded media, but {type(value).__name__}")
    return value


@functools.lru_cache(maxsize=8)
def _records(url: str) -> tuple[Any, tuple[str, ...]]:
    """The records of a set, with the media of one feature as they are stored, and its features."""
    import tensorflow_datasets as tfds

    directory, split, feature = url.removeprefix("tfds:").split("#")
    builder = tfds.builder_from_directory(directory)
    features = tuple(builder.info.features)
    decoders = {feature: tfds.decode.SkipDecoding()} if feature in features else None
    return builder.as_data_source(split=split, decoders=decoders), features
