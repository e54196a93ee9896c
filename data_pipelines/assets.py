"""An asset: one file of images or video, wherever it lies, and what is told about it."""

import dataclasses
import hashlib
import os
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import fsspec

VIDEO_SUFFIXES = (".mp4", ".mov", ".webm", ".mkv", ".avi", ".m4v")
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp")
CHUNK_BYTES = 2**20

Kind = Literal["video", "image", "unknown"]


@dataclasses.dataclass(frozen=True)
class Asset:
    """Where a file of media lies. `url` is anything that fsspec opens: a path, gs://, s3://; a
    file:// one may hold any name, percent-encoded as in `Path.as_uri`.

    In a tar, `offset` and `length`, in bytes, say where in it. In a TFDS data set, `record` says
    which, and `url` is the set's directory with the names of split and feature:
    "tfds:DIR#train#image". `problem` is why it cannot be read, found when it was listed.
    """

    url: str
    name: str  # as people know it: a path, a member of a tar, a row of a table
    caption: str | None = None
    licence: str | None = None
    provenance: Mapping[str, str] = dataclasses.field(default_factory=dict)
    offset: int | None = None
    length: int | None = None
    record: int | None = None
    problem: tuple[str, str] | None = None  # reason, a fixed phrase, and detail

    @property
    def kind(self) -> Kind:
        return kind_of(self.name)

    @contextmanager
    def opened(self) -> Iterator[IO[bytes]]:
        """The asset's bytes as a file, at its start.

        Raises:
            OSError: it is not there, or is shorter than was told.
        """
        if self.record is not None:
            from data_pipelines.tfds_source import record_bytes

            with tempfile.TemporaryFile() as file:
                file.write(record_bytes(self.url, self.record))
                file.seek(0)
                yield file
            return
        with bytes_at(self.url) as file:
            file.seek(self.offset or 0)
            yield file

    def chunks(self) -> Iterator[bytes]:
        """The asset's bytes in pieces; raises OSError as `opened` does."""
        left = self.length
        with self.opened() as file:
            while chunk := file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left)):
                if left is not None:
                    left -= len(chunk)
                yield chunk
        if left:
            raise OSError(f"{self.url} ends {left} bytes before {self.name} does")

    def content_id(self) -> str:
        """sha256 of the bytes, by which an asset keeps its name wherever it moves."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()

    @contextmanager
    def local(self) -> Iterator[Path]:
        """A path on this machine: the file itself if it is one, else a copy for so long."""
        path = local_path(self.url)
        if path is not None and self.offset is None and self.record is None:
            yield path
            return
        with tempfile.NamedTemporaryFile(suffix=Path(self.name).suffix[:8]) as copy:
            for chunk in self.chunks():
                copy.write(chunk)
            copy.flush()
            yield Path(copy.name)


def kind_of(name: str) -> Kind:
    """What a file holds by the end of its name."""
    suffix = Path(name).suffix.lower()
    if suffix in VIDEO_SUFFIXES:
        return "video"
    return "image" if suffix in IMAGE_SUFFIXES else "unknown"


@contextmanager
def bytes_at(url: str) -> Iterator[IO[bytes]]:
    """The bytes at a url.

    Raises:
        OSError: it is not there, or is no file that has an end, as a named pipe.
    """
    path = local_path(url)
    if path is None:
        with fsspec.open(url, "rb") as file:
            yield file
        return
    if path.exists() and not path.is_file():
        raise OSError(f"{url} is no regular file")
    # Not by fsspec: to it, "::" in a name chains file systems.
    with path.open("rb") as file:
        yield file


def url_of(system: fsspec.AbstractFileSystem, path: str) -> str:
    """The url of a path of a file system, printable whatever bytes the path is made of."""
    if "file" in system.protocol:
        return Path(path).as_uri()
    return str(system.unstrip_protocol(path))


def local_path(url: str) -> Path | None:
    """The path that a url names on this machine, None if it lies elsewhere."""
    if "://" not in url:
        return None if url.startswith("tfds:") else Path(url)
    if not url.startswith("file://"):
        return None
    return Path(os.fsdecode(urllib.parse.unquote_to_bytes(url.removeprefix("file://"))))
