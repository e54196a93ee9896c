"""The record: what TFDS writes and reads is what we read."""

import dataclasses

import pytest

from sora_jax.data.schema import Record, features, stored_fields

RECORD = Record(
    clip_id="clip",
    asset_id="asset",
    caption="a café",
    captions={"given": "a café", "long": "a café at night"},
    media=b"\x00\xffbytes\x00",
    media_format="png",
    frames=1,
    height=24,
    width=40,
    fps=29.97,
)


def serialize(record: Record) -> bytes:
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    serializer = ExampleSerializer(features().get_serialized_info())
    return serializer.serialize_example(features().encode_example(stored_fields(record)))


def test_a_record_comes_back_as_tfds_reads_it() -> None:
    serialized = serialize(RECORD)
    parsed = Record.parse(serialized)
    assert dataclasses.replace(parsed, fps=29.97) == RECORD
    assert parsed.fps == pytest.approx(29.97)  # stored as float32
    theirs = features().deserialize_example_np(serialized)
    fields = stored_fields(parsed)
    ours = {k: v.encode() if isinstance(v, str) else v for k, v in fields.items()}
    assert ours == theirs


@pytest.mark.parametrize("serialized", [b"", b"hello", serialize(RECORD)[:-3]])
def test_other_bytes_are_no_record(serialized: bytes) -> None:
    with pytest.raises(ValueError, match="not a record of schema 1"):
        Record.parse(serialized)


def test_an_unknown_media_format_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown media format 'gif'"):
        Record.parse(serialize(dataclasses.replace(RECORD, media_format="gif")))


def test_a_record_of_a_set_from_before_kinds_of_captions_is_read() -> None:
    old = features().get_serialized_info()
    example = features().encode_example(stored_fields(RECORD))
    del old["captions"], example["captions"]
    from tensorflow_datasets.core.example_serializer import ExampleSerializer

    parsed = Record.parse(ExampleSerializer(old).serialize_example(example))
    assert parsed.captions == {}
    assert parsed.caption == "a café"
