"""The table of clips: a row for each, with all that was measured, in Parquet.

A file that gave no clip has a row too, with the reason. Columns are those of `Row`; scores are a
column each, `score_NAME`, empty where there is nothing to measure, and their versions stand in the
table's metadata. `judge` adds the columns of `Verdict`.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from data_pipelines.assets import Asset
from sora_jax.errors import UserError

SCORE = "score_"
FINISHED_FILE = "finished.json"  # written last; a table without it is not whole
UNFINISHED = re.compile(r"clips-\d+-of-\d+\.parquet$|beam-temp-clips-")  # what Beam leaves behind


class TableError(UserError):
    """A table that is missing, not finished, or of something else."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A clip of an asset, or an asset that gave none (`problem`).

    `start`, `end`: seconds at which its first and last frames are shown. `height`, `width`: of the
    asset, upright and with square pixels; `box`: its part without black bars. `thumbnails`: grey
    pictures of 32 x 32 one after another, `thumbnail_seconds` apart, by which clips are compared.
    `embedding`: of length 1, in float32; empty without a model that embeds.
    """

    clip_id: str
    asset_id: str  # sha256 of the file; empty if it could not be read
    url: str
    name: str
    offset: int | None = None
    length: int | None = None
    record: int | None = None
    kind: str = "unknown"
    problem: str = ""
    detail: str = ""
    first: int = 0
    frames: int = 0
    start: float = 0.0
    end: float = 0.0
    fps: float = 0.0
    asset_frames: int = 0
    variable_rate: bool = False
    height: int = 0
    width: int = 0
    rotation: int = 0
    colour_range: str = "unknown"
    codec: str = "unknown"
    bits_a_second: float = 0.0
    box: tuple[int, int, int, int] | None = None  # left, top, right, bottom
    caption: str = ""
    caption_kind: str = ""  # "given", or the captioner that made it
    captions: str = ""  # JSON of captions of further kinds, by kind
    licence: str = ""
    provenance: str = "{}"  # JSON of what else was told of the asset
    thumbnails: bytes = b""
    thumbnail_seconds: float = 0.0
    embedding: bytes = b""
    scores: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def flat(self) -> dict[str, Any]:
        """The row by column."""
        columns = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        scores = columns.pop("scores")
        columns["box"] = None if self.box is None else list(self.box)
        return columns | {SCORE + name: value for name, value in scores.items()}

    def every_caption(self) -> dict[str, str]:
        """By kind, that of `caption` first."""
        further = json.loads(self.captions) if self.captions else {}
        return ({self.caption_kind: self.caption} if self.caption else {}) | further

    def asset(self) -> Asset:
        """Where the file lies that the clip is of."""
        return Asset(
            self.url, self.name, offset=self.offset, length=self.length, record=self.record
        )

    @classmethod
    def of(cls, columns: Mapping[str, Any]) -> "Row":
        """A row from its columns; others, as those of a verdict, are left out."""
        names = {field.name for field in dataclasses.fields(cls)} - {"scores"}
        fields = {name: value for name, value in columns.items() if name in names}
        if fields.get("box") is not None:
            fields["box"] = tuple(fields["box"])
        scores = {
            name.removeprefix(SCORE): value
            for name, value in columns.items()
            if name.startswith(SCORE) and value is not None
        }
        return cls(**fields, scores=scores)


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the rules say of a clip. `rule`: the first that it fails; `failed`: all of them."""

    keep: bool
    rule: str = ""
    failed: tuple[str, ...] = ()
    duplicate_of: str = ""  # the clip that is kept for it

    def flat(self) -> dict[str, Any]:
        return dataclasses.asdict(self) | {"failed": list(self.failed)}


def schema(scores: Mapping[str, int], *, judged: bool = False) -> Any:
    """The Arrow schema of a table with scores of these names and versions."""
    import pyarrow as pa

    kinds: dict[Any, Any] = {
        str: pa.string(),
        int: pa.int64(),
        float: pa.float64(),
        bool: pa.bool_(),
    }
    kinds |= {bytes: pa.binary(), int | None: pa.int64()}
    kinds |= {tuple[int, int, int, int] | None: pa.list_(pa.int32())}
    kinds |= {tuple[str, ...]: pa.list_(pa.string())}
    fields = [
        pa.field(field.name, kinds[field.type])
        for field in (*dataclasses.fields(Row), *(dataclasses.fields(Verdict) if judged else ()))
        if field.name != "scores"
    ]
    fields += [pa.field(SCORE + name, pa.float64()) for name in scores]
    return pa.schema(fields, metadata={"scores": json.dumps(dict(scores))})


def finish(directory: str, about: Mapping[str, Any]) -> None:
    """Writes the file that makes a table whole, with what it was made of."""
    import fsspec

    with fsspec.open(f"{directory}/{FINISHED_FILE}", "w") as file:
        json.dump(about, file, indent=1, sort_keys=True)
        file.write("\n")


def about(directory: str) -> dict[str, Any]:
    """What a finished table was made of.

    Raises:
        TableError: there is none, or it was never finished.
    """
    import fsspec

    try:
        with fsspec.open(f"{directory}/{FINISHED_FILE}", "r") as file:
            found: dict[str, Any] = json.load(file)
            return found
    except FileNotFoundError as error:
        raise TableError(
            f"{directory} has no {FINISHED_FILE}: not a table of clips, or never finished; "
            "run the pipeline that makes it again"
        ) from error


def rows(directory: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a finished table, by column, in no order that means anything."""
    about(directory)
    return written(directory, columns)


def written(directory: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
    """Rows of a table that may not be finished."""
    import pyarrow.dataset

    data = pyarrow.dataset.dataset(files(directory), format="parquet")
    for batch in data.to_batches(columns=None if columns is None else list(columns)):
        yield from batch.to_pylist()


def files(directory: str) -> list[str]:
    """The Parquet files of a table."""
    import fsspec

    system, path = fsspec.core.url_to_fs(directory)
    return sorted(system.glob(f"{path}/*.parquet"))


def empty(directory: str) -> None:
    """Makes sure that nothing of another table is in the way.

    Raises:
        TableError: something is there that is no unfinished table.
    """
    import fsspec

    system, path = fsspec.core.url_to_fs(directory)
    if not system.exists(path):
        system.makedirs(path, exist_ok=True)
        return
    inside = system.ls(path, detail=False)
    others = sorted(Path(file).name for file in inside if not UNFINISHED.match(Path(file).name))
    if others:
        raise TableError(f"{directory} has {others[0]} in it: remove it or choose another --output")
    for file in inside:
        system.rm(file, recursive=True)
