"""The record: what TFDS writes and reads is what we read."""

import dataclasses

import pytest

from sora_jax.data.schema import Record, features

RECORD = Record("clip", "asset", "a café", b"\x00\xffbytes\x00", "png", 1, 24, 40, 29.97)


def serialize(record: Record) -> bytes:
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    serializer = ExampleSerializer(features().get_serialized_info())
    return serializer.serialize_example(features().encode_example(vars(record)))


def test_a_record_comes_back_as_tfds_reads_it() -> None:
    serialized = serialize(RECORD)
    parsed = Record.parse(serialized)
    assert dataclasses.replace(parsed, fps=29.97) == RECORD
    assert parsed.fps == pytest.approx(29.97)  # stored as float32
    theirs = features().deserialize_example_np(serialized)
    ours = {k: v.encode() if isinstance(v, str) else v for k, v in vars(parsed).items()}
    assert ours == theirs


@pytest.mark.parametrize("serialized", [b"", b"hello", serialize(RECORD)[:-3]])
def test_other_bytes_are_no_record(serialized: bytes) -> None:
    with pytest.raises(ValueError, match="not a record of schema 1"):
        Record.parse(serialized)


def test_an_unknown_media_format_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown media format 'gif'"):
        Record.parse(serialize(dataclasses.replace(RECORD, media_format="gif")))
