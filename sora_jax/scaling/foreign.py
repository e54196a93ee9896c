"""Points of other projects' sweeps: a CSV with FLOPs, parameters, tokens and loss, as records."""

import csv
import io
import math
from pathlib import Path
from typing import Any

from sora_jax.errors import UserError
from sora_jax.scaling.records import KINDS, RunRecord, from_fields, kind_of

REQUIRED = ("flops", "parameters", "tokens", "loss")
SHORT_NAMES = {"params": "parameters"}


def read_csv(path: Path) -> list[RunRecord]:
    """A record of each row. Columns `flops`, `params` (or `parameters`), `tokens` and `loss` there
    must be, in any order and case; those called as other fields of a record fill these (`budget`,
    `cluster`, `peak_rate`), and further columns of numbers are metrics. An empty cell of an
    optional column is not known.

    Raises:
        UserError: a column is missing, or a cell is no number; with the line.
    """
    try:
        rows = list(csv.reader(io.StringIO(path.read_text(encoding="utf-8-sig"))))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    lines = [(number, row) for number, row in enumerate(rows, 1) if any(map(str.strip, row))]
    if not lines:
        raise UserError(f"{path}: there are no points")
    names = [name.strip().lower() for name in lines[0][1]]
    names = [SHORT_NAMES.get(name, name) for name in names]
    for name in REQUIRED:
        if names.count(name) != 1:
            hint = "; FLOPs are counted, never taken as 6ND" if name == "flops" else ""
            number = "no" if name not in names else "more than one"
            raise UserError(f"{path}:{lines[0][0]}: there is {number} column '{name}'{hint}")
    if len(lines) == 1:
        raise UserError(f"{path}: there are no points under the names of columns")
    kept = [index for index, name in enumerate(names) if name in KINDS or _is_metric(lines, index)]
    return [_record(path, number, names, kept, row) for number, row in lines[1:]]


def _is_metric(lines: list[tuple[int, list[str]]], index: int) -> bool:
    """Whether every cell of a column that is there is a number."""
    cells = [row[index].strip() for _, row in lines[1:] if index < len(row)]
    try:
        return len([float(cell) for cell in cells if cell]) > 0
    except ValueError:
        return False


def _record(path: Path, line: int, names: list[str], kept: list[int], row: list[str]) -> RunRecord:
    where = f"{path}:{line}"
    if len(row) != len(names):
        raise UserError(f"{where}: {len(row)} cells under {len(names)} names of columns")
    fields: dict[str, Any] = {"run": f"{path.name}:{line}", "sweep": path.stem}
    metrics: dict[str, float] = {}
    for index in kept:
        name, cell = names[index], row[index].strip()
        if not cell and name not in REQUIRED:
            continue
        kind = kind_of(name) if name in KINDS else float
        value: Any = cell if kind is str else _number(cell, name, where)
        # Counts that someone read off a figure are not whole.
        (fields if name in KINDS else metrics)[name] = round(value) if kind is int else value
    return from_fields(fields | {"metrics": metrics}, where)


def _number(cell: str, name: str, where: str) -> float:
    try:
        number = float(cell)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UserError(f"{where}: {name} is '{cell}', which is no finite number")
    return number
