"""Record, manifest and errors of a set: the one format that writers and loaders share."""

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

import numpy as np

from sora_jax.errors import UserError

SCHEMA_VERSION = 1
MANIFEST_FILE = "manifest.json"
TOKENIZER_FILE = "tokenizer.model"
LEDGER_FILE = "ledger.jsonl"
EMPTY_CAPTION_FILE = "empty_caption.npy"

MediaFormat = Literal["mp4", "png", "jpeg", "npy.zlib"]
MEDIA_FORMATS = frozenset(get_args(MediaFormat))
Parsed = TypeVar("Parsed")


class DataError(UserError):
    """Media, a record or a set that cannot be used; the message names it and says what to do."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Described:
    """Which clip a record is of, and of what size, in pixels: what records of all sets have.

    The fields are the TFDS features of the same names. Where a clip has captions of several kinds,
    `captions` has all of them, the first as well, by kind; it is stored as JSON.
    """

    clip_id: str  # unique in the set
    asset_id: str  # the source it was cut from, so that clips of one video can be kept together
    caption: str
    captions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    frames: int
    height: int
    width: int
    fps: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record(Described):
    """One captioned clip as stored."""

    media: bytes
    media_format: MediaFormat

    @classmethod
    def parse(cls, serialized: bytes) -> "Record":
        """Reads one stored example.

        Raises:
            ValueError: the bytes are not a record of this schema.
        """
        record = parse_example(serialized, cls._of)
        if record.media_format not in MEDIA_FORMATS:
            raise ValueError(f"unknown media format {record.media_format!r}")
        return record

    @classmethod
    def _of(cls, feature: Any) -> "Record":
        return cls(
            media=feature["media"].bytes_list.value[0],
            media_format=feature["media_format"].bytes_list.value[0].decode(),
            **described(feature),
        )


def parse_example(serialized: bytes, read: Callable[[Any], Parsed]) -> Parsed:
    """What `read` makes of the features of one stored example, by their names.

    Straight from the protobuf: the same values as TFDS's deserialize_example_np at a tenth of its
    0.1 ms, which was half the time to read a small clip.

    Raises:
        ValueError: the bytes are not a record of this schema.
    """
    try:
        example = _example().FromString(serialized)  # holds what the next line refers to
        return read(example.features.feature)
    except MemoryError:
        raise  # no fault of the record
    except Exception as error:  # protobuf's DecodeError derives from Exception alone
        raise ValueError(f"not a record of schema {SCHEMA_VERSION}: {error}") from error


def described(feature: Any) -> dict[str, Any]:
    """The fields that say which clip it is and of what size, out of the stored features."""
    return {
        "clip_id": feature["clip_id"].bytes_list.value[0].decode(),
        "asset_id": feature["asset_id"].bytes_list.value[0].decode(),
        "caption": feature["caption"].bytes_list.value[0].decode(),
        "captions": _captions(feature),
        "frames": feature["frames"].int64_list.value[0],
        "height": feature["height"].int64_list.value[0],
        "width": feature["width"].int64_list.value[0],
        "fps": feature["fps"].float_list.value[0],
    }


def _captions(feature: Any) -> Mapping[str, str]:
    """Sets from before there were several kinds have none: protobuf makes up an empty feature."""
    stored = feature["captions"].bytes_list.value
    if not stored or not stored[0]:
        return {}
    captions: Mapping[str, str] = json.loads(stored[0])
    return captions


def stored_fields(record: Described) -> dict[str, Any]:
    """The fields of a record as TFDS takes them."""
    captions = json.dumps(record.captions, ensure_ascii=False) if record.captions else ""
    return {**vars(record), "captions": captions}


@functools.cache
def _example() -> Any:
    """The class of stored examples; an import statement would be a tenth of the time to parse."""
    from tensorflow_datasets.proto import tf_example_pb2

    return tf_example_pb2.Example


@functools.cache
def features() -> Any:
    """TFDS features of a record; none of them needs TensorFlow."""
    import tensorflow_datasets as tfds

    f = tfds.features
    return f.FeaturesDict(
        {
            **describing_features(),
            # Raw bytes: features.Video and features.Image would import TensorFlow.
            "media": f.Tensor(shape=(), dtype=np.object_),
            "media_format": f.Text(),
        }
    )


def describing_features() -> dict[str, Any]:
    """TFDS features of the fields that `described` reads."""
    from tensorflow_datasets import features as f

    return {
        "clip_id": f.Text(),
        "asset_id": f.Text(),
        "caption": f.Text(),
        "captions": f.Text(),
        "frames": f.Scalar(np.int32),
        "height": f.Scalar(np.int32),
        "width": f.Scalar(np.int32),
        "fps": f.Scalar(np.float32),
    }


@dataclasses.dataclass(frozen=True)
class FileEntry:
    """A file of the set, as it was when the manifest was written."""

    file: str  # relative to the set
    bytes: int
    sha256: str
    records: int = 0  # of a shard

    @classmethod
    def of(cls, directory: Path, file: str, records: int = 0) -> "FileEntry":
        path = directory / file
        return cls(file, path.stat().st_size, file_sha256(path), records)

    def check(self, directory: Path, *, contents: bool) -> None:
        """Compares the file on disk with this entry; `contents` reads and hashes all of it.

        Raises:
            DataError: the file is missing, has another size, or (contents) another hash.
        """
        path = directory / self.file
        if not path.is_file():
            raise DataError(f"{path} is in the manifest but not on disk: build the set again")
        size = path.stat().st_size
        if size != self.bytes:
            raise DataError(
                f"{path} has {size} bytes, the manifest says {self.bytes}: build the set again"
            )
        if contents and file_sha256(path) != self.sha256:
            raise DataError(f"{path} does not have the manifest's sha256: build the set again")


@dataclasses.dataclass(frozen=True)
class Encoding:
    """What the latents of a set are of, and which models made them and embedded the captions."""

    source_id: str  # id of the set of clips
    vae_id: str
    channels: int  # of the latents
    text_id: str | None = None  # None: captions are not embedded
    text_width: int | None = None

    def __str__(self) -> str:
        text = f", captions by {self.text_id}" if self.text_id else ""
        return f"latents by autoencoder {self.vae_id} of set {self.source_id[:12]}{text}"


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a set holds. Written last, so that a set without one was never finished."""

    shards: Mapping[str, tuple[FileEntry, ...]]  # by bucket name, "frames x height x width"
    tokenizer: FileEntry
    ledger: FileEntry
    ledger_counts: Mapping[str, int]
    schema_version: int = SCHEMA_VERSION
    latents: Encoding | None = None  # of a set that holds latents in place of clips
    empty_caption: FileEntry | None = None  # its embedding [l, d], where captions are embedded

    def records(self, bucket: str) -> int:
        return sum(shard.records for shard in self.shards.get(bucket, ()))

    def files(self) -> tuple[FileEntry, ...]:
        return (
            *(s for shards in self.shards.values() for s in shards),
            self.tokenizer,
            self.ledger,
            *(() if self.empty_caption is None else (self.empty_caption,)),
        )

    @property
    def id(self) -> str:
        """sha256 over everything in the manifest, hence over the contents of the set."""
        return hashlib.sha256(self.text().encode()).hexdigest()

    def text(self) -> str:
        content = dataclasses.asdict(self)
        for name in ("latents", "empty_caption"):
            if content[name] is None:
                del content[name]  # a set keeps the id that it had before there were any
        return json.dumps(content, indent=1, sort_keys=True) + "\n"

    def save(self, directory: Path) -> None:
        """Writes the manifest in one rename."""
        partial = directory / (MANIFEST_FILE + ".partial")
        partial.write_text(self.text())
        os.replace(partial, directory / MANIFEST_FILE)

    @classmethod
    def load(cls, directory: Path) -> "Manifest":
        """Reads the manifest of a set.

        Raises:
            DataError: there is none, it cannot be read, or it is of another schema version.
        """
        path = directory / MANIFEST_FILE
        if not path.is_file():
            raise DataError(f"{directory} has no {MANIFEST_FILE}: not a set, or never finished")
        try:
            fields = json.loads(path.read_text())
            version = fields["schema_version"]
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} cannot be read ({error}): build the set again") from error
        if version != SCHEMA_VERSION:
            raise DataError(
                f"{path} has schema version {version}, this program reads {SCHEMA_VERSION}: "
                "build the set again"
            )
        try:
            fields["shards"] = {
                bucket: tuple(FileEntry(**shard) for shard in shards)
                for bucket, shards in fields["shards"].items()
            }
            fields["tokenizer"] = FileEntry(**fields["tokenizer"])
            fields["ledger"] = FileEntry(**fields["ledger"])
            for name, kind in (("latents", Encoding), ("empty_caption", FileEntry)):
                if name in fields:
                    fields[name] = kind(**fields[name])
            return cls(**fields)
        except (KeyError, TypeError, AttributeError) as error:
            raise DataError(f"{path} cannot be read ({error}): build the set again") from error


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
