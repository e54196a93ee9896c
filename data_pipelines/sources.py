"""Where assets come from: folders, tars in WebDataset layout, Parquet tables, TFDS data sets.

A source is named on the command line as KIND:PLACE, and lists assets without reading their media:

    folder:DIR            media below DIR, captions beside them: name.txt, or name.json with
                          "caption", "licence" and whatever else is to be kept
    tars:PATTERN          *.tar files; members that share a name up to the first dot are one sample
    parquet:PATTERN       columns uri and caption; licence if there; any other column is kept
    tfds:DIR#SPLIT#FEATURE  a prepared set with encoded images or video in a feature

Places are local or whatever fsspec has a driver for (gs:// with gcsfs, s3:// with s3fs). A source
of another kind is a function in SOURCES.
"""

import dataclasses
import json
import os
import tarfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Any

import fsspec

from data_pipelines.assets import IMAGE_SUFFIXES, VIDEO_SUFFIXES, Asset
from sora_jax.errors import UserError

SIDECARS = (".txt", ".json")
MEDIA = VIDEO_SUFFIXES + IMAGE_SUFFIXES


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
        return [(kind, place)]
    system, path = fsspec.core.url_to_fs(place)
    found = sorted(system.glob(path)) if kind in ("tars", "parquet") else [path]
    if not found or not system.exists(found[0]):
        raise SourceError(f"--source {source}: nothing is at {place}")
    if kind == "folder" and not system.isdir(path):
        raise SourceError(f"--source {source}: {place} is not a folder")
    return [(kind, system.unstrip_protocol(each)) for each in found]


def assets(unit: tuple[str, str]) -> Iterator[Asset]:
    """Every asset of a part of a source; what is no media at all is one too, with a problem."""
    kind, place = unit
    return SOURCES[kind](place)


def _folder(place: str) -> Iterator[Asset]:
    system, root = fsspec.core.url_to_fs(place)
    found = sorted(system.find(root))
    names = {file: os.path.relpath(file, root) for file in found}
    stems = {_stem(file) for file in found if _suffix(file) in MEDIA}
    present = set(found)
    for file in found:
        suffix = _suffix(file)
        if suffix in SIDECARS and _stem(file) in stems:
            continue
        url = system.unstrip_protocol(file)
        asset = Asset(url=url, name=printable(names[file]))
        if suffix in SIDECARS:
            yield dataclasses.replace(asset, problem=("caption without media", ""))
            continue
        if suffix not in MEDIA:
            yield dataclasses.replace(asset, problem=("unsupported kind of file", suffix))
            continue
        beside = [_stem(file) + ending for ending in SIDECARS if _stem(file) + ending in present]
        yield told(asset, beside[0], system.cat_file(beside[0])) if beside else asset


def _tar(place: str) -> Iterator[Asset]:
    """WebDataset's layout: the name up to the first dot of its last part is the sample."""
    sidecars: dict[str, tuple[str, bytes]] = {}
    media: list[tuple[str, Asset]] = []
    try:
        with fsspec.open(place, "rb") as raw, tarfile.open(fileobj=raw, mode="r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                folder, _, base = member.name.rpartition("/")
                key = f"{folder}/{base.partition('.')[0]}"
                suffix = _suffix(member.name)
                if suffix in SIDECARS:
                    extracted = tar.extractfile(member)
                    assert extracted is not None  # it is a file
                    sidecars[key] = (member.name, extracted.read())
                    continue
                asset = Asset(
                    url=place,
                    name=printable(f"{PurePosixPath(place).name}/{member.name}"),
                    offset=member.offset_data,
                    length=member.size,
                    problem=None if suffix in MEDIA else ("unsupported kind of file", suffix),
                )
                media.append((key, asset))
    except (tarfile.TarError, OSError) as error:
        name = PurePosixPath(place).name
        yield Asset(url=place, name=printable(name), problem=("tar cannot be read", str(error)))
    keys = {key for key, _ in media}
    for key, asset in media:
        yield told(asset, *sidecars[key]) if key in sidecars else asset
    for key in sorted(set(sidecars) - keys):
        yield Asset(place, printable(sidecars[key][0]), problem=("caption without media", ""))


def _parquet(place: str) -> Iterator[Asset]:
    import pyarrow.parquet

    with fsspec.open(place, "rb") as raw:
        table = pyarrow.parquet.ParquetFile(raw)
        names = table.schema_arrow.names
        if "uri" not in names:
            raise SourceError(f"{place} has no column 'uri', only {', '.join(names)}")
        number = 0
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                yield _of_row(place, number, row)
                number += 1


def _of_row(place: str, number: int, row: Mapping[str, Any]) -> Asset:
    uri = row["uri"]
    if not isinstance(uri, str) or not uri:
        name = f"{PurePosixPath(place).name} row {number}"
        return Asset(url=place, name=printable(name), problem=("no uri", f"row {number}"))
    url = uri if "://" in uri or uri.startswith("/") else f"{os.path.dirname(place)}/{uri}"
    asset = Asset(url=url, name=printable(uri))
    known = {name: value for name, value in row.items() if name != "uri" and value is not None}
    if asset.kind == "unknown":
        asset = dataclasses.replace(asset, problem=("unsupported kind of file", _suffix(uri)))
    return with_facts(asset, known)


def _tfds(place: str) -> Iterator[Asset]:
    from data_pipelines.tfds_source import listed

    return listed(place)


SOURCES: Mapping[str, Callable[[str], Iterator[Asset]]] = {
    "folder": _folder,
    "tars": _tar,
    "parquet": _parquet,
    "tfds": _tfds,
}


def told(asset: Asset, sidecar: str, contents: bytes) -> Asset:
    """An asset with what its sidecar tells, or with a problem if that cannot be read."""
    try:
        text = contents.decode("utf-8-sig")
        facts = json.loads(text) if _suffix(sidecar) == ".json" else {"caption": text}
        if not isinstance(facts, dict) or not isinstance(facts.get("caption", ""), str):
            raise ValueError('not like {"caption": "text"}')
    except UnicodeDecodeError as error:
        return dataclasses.replace(asset, problem=("caption is not UTF-8", error.reason))
    except ValueError as error:
        return dataclasses.replace(asset, problem=("caption cannot be read", str(error)))
    return with_facts(asset, facts)


def with_facts(asset: Asset, facts: Mapping[str, Any]) -> Asset:
    """An asset with a caption of single spaces, a licence, and the rest as provenance."""
    caption = facts.get("caption")
    licence = facts.get("licence", facts.get("license"))
    rest = {
        name: value if isinstance(value, str) else json.dumps(value, default=str)
        for name, value in facts.items()
        if name not in ("caption", "licence", "license")
    }
    return dataclasses.replace(
        asset,
        caption=None if caption is None else " ".join(str(caption).split()),
        licence=None if licence is None else str(licence),
        provenance=rest,
    )


def printable(name: str) -> str:
    """A name as text that any table can hold: bytes that are not UTF-8 are written out."""
    return name.encode("utf-8", "backslashreplace").decode()


def _suffix(name: str) -> str:
    return PurePosixPath(name).suffix.lower()


def _stem(name: str) -> str:
    return name.removesuffix(PurePosixPath(name).suffix)
