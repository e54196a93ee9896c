"""Where assets come from: folders, tars in WebDataset layout, Parquet tables, TFDS data sets.

A source is named on the command line as KIND:PLACE, and lists assets without reading their media:

    folder:DIR            media below DIR, captions beside them: name.txt, and name.json with
                          "caption", "licence" and whatever else is to be kept; where both have
                          a caption, name.txt's
    tars:PATTERN          *.tar files; members that share a name up to the first dot are one sample
    parquet:PATTERN       columns uri and caption; licence if there; any other column is kept; a
                          uri without "://" is a path, from the table's folder
    tfds:DIR#SPLIT#FEATURE  a prepared set with encoded images or video in a feature; other
                          features that are text or numbers are kept

Places are local or whatever fsspec has a driver for (gs:// with gcsfs, s3:// with s3fs). A source
of another kind is a function in SOURCES. What cannot be read is an asset with a problem, so that
one bad file neither ends a pipeline nor goes missing without a word.
"""

import dataclasses
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import PurePosixPath
from typing import Any

import fsspec

from data_pipelines.assets import (
    IMAGE_SUFFIXES,
    VIDEO_SUFFIXES,
    Asset,
    bytes_at,
    local_path,
    url_of,
)
from sora_jax.errors import UserError

SIDECARS = (".json", ".txt")  # what a later one tells counts
MEDIA = VIDEO_SUFFIXES + IMAGE_SUFFIXES
UNSUPPORTED = "unsupported kind of file"
Sidecar = tuple[str, bytes]  # name and contents


class SourceError(UserError):
    """A source that does not exist or cannot be listed."""


def units(source: str) -> list[tuple[str, str]]:
    """(kind, place) of the parts of a source that workers list on their own: a tar, a table.

    Raises:
        SourceError: the kind is unknown, or nothing is there.
    """
    kind, _, place = source.partition(":")
    if kind not in SOURCES or not place:
        raise SourceError(
            f"--source {source!r} is not understood: give one of "
            + ", ".join(f"{name}:PLACE" for name in SOURCES)
        )
    if kind == "tfds":
        from data_pipelines import tfds_source

        tfds_source.check(place)
        return [(kind, place)]
    system, path = fsspec.core.url_to_fs(place)
    found = sorted(system.glob(path)) if kind in ("tars", "parquet") else [path]
    if not found or not system.exists(found[0]):
        raise SourceError(f"--source {source}: nothing is at {place}")
    if kind == "folder" and not system.isdir(path):
        raise SourceError(f"--source {source}: {place} is not a folder")
    if kind == "folder" and not any(files for _, _, files in system.walk(path)):
        raise SourceError(f"--source {source}: no file is in {place}, nor below it")
    return [(kind, url_of(system, each)) for each in found]


def assets(unit: tuple[str, str]) -> Iterator[Asset]:
    """Every asset of a part of a source; what is no media at all is one too, with a problem."""
    kind, place = unit
    return SOURCES[kind](place)


def _folder(place: str) -> Iterator[Asset]:
    path = local_path(place)
    system, root = fsspec.core.url_to_fs(place if path is None else str(path))
    found = sorted(system.find(root))
    stems = {_stem(file) for file in found if _suffix(file) in MEDIA}
    sidecars: dict[str, list[str]] = {}
    for file in found:
        if _suffix(file) in SIDECARS:
            sidecars.setdefault(_stem(file), []).append(file)
    for file in found:
        suffix, stem = _suffix(file), _stem(file)
        asset = Asset(url=url_of(system, file), name=printable(os.path.relpath(file, root)))
        if suffix in MEDIA:
            yield _told_by_files(asset, system, sidecars.get(stem, []))
        elif suffix not in SIDECARS:
            yield dataclasses.replace(asset, problem=(UNSUPPORTED, suffix))
        elif stem not in stems:
            yield dataclasses.replace(asset, problem=("caption without media", ""))


def _told_by_files(
    asset: Asset, system: fsspec.AbstractFileSystem, sidecars: Sequence[str]
) -> Asset:
    try:
        return told(asset, [(file, system.cat_file(file)) for file in sidecars])
    except OSError as error:  # a link to nothing, or a file that may not be read
        return dataclasses.replace(asset, problem=("caption cannot be read", str(error)))


def _tar(place: str) -> Iterator[Asset]:
    """WebDataset's layout: the name up to the first dot of its last part is the sample."""
    sidecars: dict[str, list[Sidecar]] = {}
    media: list[tuple[str, Asset]] = []
    try:
        with bytes_at(place) as raw, tarfile.open(fileobj=raw, mode="r:") as tar:
            for member in tar:
                folder, _, base = member.name.rpartition("/")
                key = f"{folder}/{base.partition('.')[0]}"
                if _suffix(base) in SIDECARS and member.isfile():
                    extracted = tar.extractfile(member)
                    assert extracted is not None  # it is a file
                    sidecars.setdefault(key, []).append((member.name, extracted.read()))
                elif not member.isdir():
                    media.append((key, _of_member(place, member)))
            # A damaged header in the middle is to tarfile as good an end as the zeros that are one.
            raw.seek(tar.offset)
            if raw.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                raise tarfile.ReadError(f"it is damaged or cut off at byte {tar.offset}")
    except Exception as error:  # what tarfile makes of the bytes of strangers
        yield _unlisted(place, "tar cannot be read", error)
    keys = {key for key, _ in media}
    for key, asset in media:
        yield told(asset, sidecars.get(key, []))
    for key in sorted(set(sidecars) - keys):
        for name, _ in sidecars[key]:
            yield Asset(place, _inside(place, name), problem=("caption without media", ""))


def _of_member(place: str, member: tarfile.TarInfo) -> Asset:
    problem = None
    if not member.isfile() or member.issparse():  # not so many bytes in one piece
        problem = (UNSUPPORTED, "a link, a hole or a device of a tar")
    elif _suffix(member.name) not in MEDIA:
        problem = (UNSUPPORTED, _suffix(member.name))
    return Asset(
        url=place,
        name=_inside(place, member.name),
        offset=member.offset_data,
        length=member.size,
        problem=problem,
    )


def _parquet(place: str) -> Iterator[Asset]:
    import pyarrow.parquet

    number = 0
    try:
        with bytes_at(place) as raw:
            table = pyarrow.parquet.ParquetFile(raw)
            names = table.schema_arrow.names
            if "uri" not in names:
                raise ValueError(f"it has no column 'uri', only {', '.join(names)}")
            for batch in table.iter_batches():
                for row in _by_column(batch):
                    yield _of_row(place, number, row)
                    number += 1
    except Exception as error:  # what Arrow makes of the bytes of strangers
        yield _unlisted(place, f"table cannot be read from row {number}", error)


def _by_column(batch: Any) -> Iterator[dict[str, Any]]:
    """The rows of a batch, with text as bytes: text in Parquet may be none."""
    import pyarrow

    columns = [
        column.cast(pyarrow.large_binary())
        if pyarrow.types.is_string(column.type) or pyarrow.types.is_large_string(column.type)
        else column
        for column in batch.columns
    ]
    for values in zip(*(column.to_pylist() for column in columns), strict=True):
        yield dict(zip(batch.schema.names, values, strict=True))


def _of_row(place: str, number: int, row: Mapping[str, Any]) -> Asset:
    uri = row["uri"]
    uri = printable(uri.decode("utf-8", "surrogateescape")) if isinstance(uri, bytes) else uri
    facts = {name: value for name, value in row.items() if name != "uri" and value is not None}
    if not isinstance(uri, str) or not uri:
        asset = Asset(place, _inside(place, f"row {number}"), problem=("no uri", f"row {number}"))
        return with_facts(asset, facts)
    folder = local_path(os.path.dirname(place))
    if "://" in uri:
        url = uri
    else:
        url = f"{os.path.dirname(place)}/{uri}" if folder is None else (folder / uri).as_uri()
    asset = Asset(url=url, name=uri)
    if asset.kind == "unknown":
        asset = dataclasses.replace(asset, problem=(UNSUPPORTED, _suffix(uri)))
    return with_facts(asset, facts)


def _tfds(place: str) -> Iterator[Asset]:
    from data_pipelines.tfds_source import listed

    return listed(place)


SOURCES: Mapping[str, Callable[[str], Iterator[Asset]]] = {
    "folder": _folder,
    "tars": _tar,
    "parquet": _parquet,
    "tfds": _tfds,
}


def told(asset: Asset, sidecars: Sequence[Sidecar]) -> Asset:
    """An asset with what its sidecars tell, or with a problem if one cannot be read."""
    facts: dict[str, Any] = {}
    for name, contents in sorted(sidecars, key=lambda each: SIDECARS.index(_suffix(each[0]))):
        try:
            text = contents.decode("utf-8-sig")
            found = json.loads(text) if _suffix(name) == ".json" else {"caption": text}
            if not isinstance(found, dict) or not isinstance(found.get("caption", ""), str):
                raise ValueError('not like {"caption": "text"}')
        except UnicodeDecodeError as error:
            return _not_text(asset, error)
        except (ValueError, RecursionError) as error:
            return dataclasses.replace(asset, problem=("caption cannot be read", str(error)))
        facts |= found
    return with_facts(asset, facts)


def with_facts(asset: Asset, facts: Mapping[str, Any]) -> Asset:
    """An asset with a caption of single spaces, a licence, and the rest as provenance; with a
    problem if its caption is no text."""
    caption = facts.get("caption")
    licence = facts.get("licence", facts.get("license"))
    rest = {
        name: _text(value) if isinstance(value, str | bytes) else json.dumps(value, default=str)
        for name, value in facts.items()
        if name not in ("caption", "licence", "license")
    }
    asset = dataclasses.replace(
        asset, licence=None if licence is None else _text(licence), provenance=rest
    )
    try:
        words = caption.decode() if isinstance(caption, bytes) else str(caption or "")
        words.encode()  # JSON can hold half a character
    except UnicodeError as error:
        return _not_text(asset, error)
    return dataclasses.replace(asset, caption=" ".join(words.split()) or None)


def further_captions(asset: Asset) -> str:
    """JSON of captions of other kinds that were told as "captions": {"kind": "text"}; "" of none,
    or of anything else, which is provenance alone."""
    try:
        found = json.loads(asset.provenance.get("captions", "{}"))
        texts = {kind: " ".join(text.split()) for kind, text in found.items() if kind != "given"}
    except (ValueError, AttributeError, RecursionError):
        return ""
    return json.dumps(texts, sort_keys=True) if any(texts.values()) else ""


def printable(name: str) -> str:
    """A name as text that any table can hold: bytes that are not UTF-8 are written out."""
    return name.encode("utf-8", "backslashreplace").decode()


def _text(value: Any) -> str:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return printable(str(value))


def _not_text(asset: Asset, error: UnicodeError) -> Asset:
    return (
        asset
        if asset.problem
        else dataclasses.replace(asset, problem=("caption is not UTF-8", str(error.args[-1])))
    )


def _unlisted(place: str, reason: str, error: Exception) -> Asset:
    """What stands for all that could not be listed of a tar or a table."""
    detail = f"{type(error).__name__}: {error}"
    return Asset(place, printable(PurePosixPath(place).name), problem=(reason, detail))


def _inside(place: str, name: str) -> str:
    return printable(f"{PurePosixPath(place).name}/{name}")


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _stem(name: str) -> str:
    return name.removesuffix(PurePosixPath(name).suffix)
