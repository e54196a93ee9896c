"""Encoded images and videos of a prepared TFDS set, by the number of their record."""

import functools
from collections.abc import Iterator
from typing import Any

from data_pipelines.assets import Asset
from sora_jax.errors import UserError

CAPTIONS = ("caption", "text", "label")  # the feature that serves as one, the first that is there


def listed(place: str) -> Iterator[Asset]:
    """An asset for every record of DIR#SPLIT#FEATURE.

    Raises:
        UserError: the place has another form, or the set or the feature is not there.
    """
    records, feature = _records(f"tfds:{place}")
    suffix = "mp4" if feature in ("video", "media") else "png"
    for number in range(len(records)):
        record = records[number]
        caption = next((record[name] for name in CAPTIONS if name in record), None)
        text = caption.decode("utf-8", "replace") if isinstance(caption, bytes) else None
        yield Asset(
            url=f"tfds:{place}",
            name=f"{place}/{number:09d}.{suffix}",
            caption=None if text is None else " ".join(text.split()),
            record=number,
        )


def record_bytes(url: str, number: int) -> bytes:
    """The encoded media of a record."""
    records, feature = _records(url)
    value = records[number][feature]
    if not isinstance(value, bytes):
        raise OSError(f"{url} record {number} holds no encoded media, but {type(value).__name__}")
    return value


@functools.lru_cache(maxsize=8)
def _records(url: str) -> tuple[Any, str]:
    import tensorflow_datasets as tfds

    parts = url.removeprefix("tfds:").split("#")
    if len(parts) != 3:
        raise UserError(f"{url!r} is not of the form tfds:DIR#SPLIT#FEATURE")
    directory, split, feature = parts
    builder = tfds.builder_from_directory(directory)
    if feature not in builder.info.features:
        names = ", ".join(builder.info.features)
        raise UserError(f"{directory} has no feature {feature!r}, only {names}")
    decoders = {feature: tfds.decode.SkipDecoding()}
    return builder.as_data_source(split=split, decoders=decoders), feature
