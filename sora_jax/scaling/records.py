"""One training run as a point of a scaling law: its record, and files of JSON lines and Parquet.

A file is read whole or refused: a line that is cut, has an unknown field or a number that is not
finite is named, as `records.jsonl:17`, and no law is fitted to the rest.
"""

import dataclasses
import json
import math
import typing
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from sora_jax.errors import ConfigError, UserError, nearest
from sora_jax.fields import annotations, from_plain, show
from sora_jax.files import write_file, writing

SCHEMA = 1
POSITIVE = ("budget", "flops", "parameters", "tokens", "loss")
RECORD_FILES = ("record.json", "records.jsonl", "records.parquet")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """What a run of a sweep cost and came to. None: not known, as of runs of other projects.

    Raises:
        ConfigError: a number that must be positive and finite is not, or the schema is unknown.

    Attributes:
        run: content hash of the run; of a foreign point the file and line that it stands in.
        sweep: name of the sweep, or of the file.
        status: only what is done is fitted to; the others are reported.
        cluster: the same for runs whose losses are correlated, as branches of one run are.
        budget: training FLOPs that the run was given; None: found among runs of about its FLOPs.
        flops: training FLOPs that it spent, counted exactly (`scaling.flops`), never as 6ND.
        parameters: all that the network has.
        tokens: spacetime patches trained on, padding not counted.
        batch_tokens: tokens of one step.
        peak_rate: learning rate after the warm-up.
        warmup_share: of the steps.
        parametrisation: how widths share a learning rate; a fit mixes no two.
        rule: name of the rule that gave batch and rate.
        loss: held-out, over clips, noise and levels that all runs of the sweep share; None where
            the run has none because it is not done.
        loss_error: its standard error.
        metrics: other scores on held-out clips, by name.
        experiment, code, data: fingerprints of the config, the code and the set.
    """

    run: str
    sweep: str
    status: Literal["done", "diverged", "failed"] = "done"
    cluster: str = ""
    budget: float | None = None
    flops: float
    parameters: int
    parameters_without_embedding: int | None = None
    tokens: float
    steps: int | None = None
    batch_tokens: float | None = None
    peak_rate: float | None = None
    warmup_share: float | None = None
    width: int | None = None
    depth: int | None = None
    heads: int | None = None
    parametrisation: Literal["standard", "mup"] | None = None
    rule: str | None = None
    seed: int | None = None
    loss: float | None
    loss_error: float | None = None
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    experiment: str | None = None
    code: str | None = None
    data: str | None = None
    hardware: str | None = None
    seconds: float | None = None
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ConfigError(f"schema {self.schema} is not known here, which reads {SCHEMA}")
        for name in POSITIVE:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{name} is {value}; it must be positive and finite")
        if self.loss is None and self.status == "done":
            raise ConfigError("loss is missing, though the run is done")
        for name, value in self.metrics.items():
            if not math.isfinite(value):
                raise ConfigError(f"{name} is {value}; leave out what is not known")
        if not self.cluster:
            object.__setattr__(self, "cluster", self.run)


KINDS = annotations(RunRecord)


def kind_of(name: str) -> type:
    """What a field of a record holds where it is known: int, float or str."""
    members = (KINDS[name], *typing.get_args(KINDS[name]))
    return next((kind for kind in (int, float) if kind in members), str)


def from_fields(fields: Mapping[str, Any], where: str) -> RunRecord:
    """A record of plain data, each field checked against its annotation.

    Raises:
        UserError: which field is wrong, and `where`.
    """
    try:
        for name in fields:
            if name not in KINDS:
                raise ConfigError(f"no field '{name}'{nearest(name, KINDS)}")
        for field in dataclasses.fields(RunRecord):
            has_default = (field.default, field.default_factory) != (dataclasses.MISSING,) * 2
            if field.name not in fields and not has_default:
                raise ConfigError(f"{field.name} is missing")
        values: dict[str, Any] = {
            name: _metrics(value) if name == "metrics" else from_plain(value, KINDS[name], name)
            for name, value in fields.items()
        }
        return RunRecord(**values)
    except ConfigError as error:
        raise UserError(f"{where}: {error}") from None


def _metrics(value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"metrics expects names and numbers, got {show(value)}")
    return {str(name): from_plain(number, float, str(name)) for name, number in value.items()}


def to_line(record: RunRecord) -> str:
    """The record as a line of JSON, with its line end; `from_line` gives it back."""
    return json.dumps(dataclasses.asdict(record), ensure_ascii=False, allow_nan=False) + "\n"


def from_line(line: str, where: str) -> RunRecord:
    """The record of a line of JSON. Raises UserError, naming `where`, for anything else."""
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{where}: not a whole record ({error.msg} at column {error.colno}): delete the line, "
            "or run it again"
        ) from None
    if not isinstance(fields, dict):
        raise UserError(f"{where}: a record is an object of JSON, got {show(fields)}")
    return from_fields(fields, where)


def write_jsonl(path: Path, records: Iterable[RunRecord]) -> None:
    """Writes a file of JSON lines, whole or not at all; errors as `files.write_file`."""
    write_file(path, "".join(map(to_line, records)).encode())


def write_parquet(path: Path, records: Sequence[RunRecord]) -> None:
    """Writes a table with a column for each field and metrics as a map, whole or not at all."""
    import pyarrow as pa
    import pyarrow.parquet

    kinds = {int: pa.int64(), float: pa.float64(), str: pa.string()}
    columns = {name: kinds[kind_of(name)] for name in KINDS}
    schema = pa.schema(columns | {"metrics": pa.map_(pa.string(), pa.float64())})
    rows = [dataclasses.asdict(each) | {"metrics": list(each.metrics.items())} for each in records]
    with writing(path) as partial:
        pyarrow.parquet.write_table(pa.Table.from_pylist(rows, schema), partial)


def _read_parquet(path: Path) -> list[RunRecord]:
    import pyarrow as pa
    import pyarrow.parquet

    try:
        rows = pyarrow.parquet.read_table(path).to_pylist()
    except pa.ArrowException as error:
        raise UserError(f"{path}: not a file of Parquet: {error}") from None
    return [
        from_fields(row | {"metrics": dict(row.get("metrics") or ())}, f"{path}, row {number}")
        for number, row in enumerate(rows, 1)
    ]


def read_records(path: Path) -> list[RunRecord]:
    """The records of a `.jsonl`, `.json` or `.parquet`, or of all such files under a directory that
    are called `record.json`, `records.jsonl` or `records.parquet`. A run that stands twice with
    the same content counts once.

    Raises:
        UserError: there are none, one cannot be read, or two of one run differ.
    """
    if path.is_dir():
        files = sorted(each for name in RECORD_FILES for each in path.rglob(name))
    else:
        files = [path]
    found: dict[str, RunRecord] = {}
    for file in files:
        for record in _read_file(file):
            if found.setdefault(record.run, record) != record:
                raise UserError(
                    f"{file}: run {record.run} has another record too, with other content: "
                    "keep the right one"
                )
    if not found:
        raise UserError(f"{path}: there are no records of runs")
    return list(found.values())


def _read_file(path: Path) -> list[RunRecord]:
    try:
        if path.suffix == ".parquet":
            return _read_parquet(path)
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    if path.suffix == ".json":
        return [from_line("\n".join(lines), str(path))]
    return [
        from_line(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()
    ]
