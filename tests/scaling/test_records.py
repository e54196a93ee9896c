"""Records of runs: whole through JSON lines, Parquet and CSV, and refused by file and line."""

import json
from pathlib import Path

import pytest

from sora_jax.errors import ConfigError, UserError
from sora_jax.scaling.foreign import read_csv
from sora_jax.scaling.records import RunRecord, read_records, to_line, write_jsonl, write_parquet

RUN = RunRecord(
    run="3f2a", sweep="world", flops=1.25e15, parameters=1_000_000, tokens=2.5e7, loss=0.25,
    budget=1.26e15, batch_tokens=4096.0, width=64, parametrisation="mup", metrics={"fvd": 311.5},
)  # fmt: skip
LOST = RunRecord(
    run="77aa", sweep="world", status="diverged", flops=1e14, parameters=10, tokens=3.0, loss=None
)


@pytest.mark.parametrize("name", ["records.jsonl", "records.parquet"])
def test_records_come_back_as_they_were_written(tmp_path: Path, name: str) -> None:
    write = write_parquet if name.endswith("parquet") else write_jsonl
    write(tmp_path / "sweep" / name, [RUN, LOST])
    assert read_records(tmp_path / "sweep" / name) == [RUN, LOST]
    assert read_records(tmp_path) == [RUN, LOST]


def test_a_run_that_stands_twice_counts_once_and_is_refused_where_it_differs(
    tmp_path: Path,
) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "record.json").write_text(to_line(RUN))
    write_jsonl(tmp_path / "records.jsonl", [RUN, LOST])
    assert len(read_records(tmp_path)) == 2
    (tmp_path / "a" / "record.json").write_text(to_line(RUN).replace("0.25", "0.26"))
    with pytest.raises(UserError, match="run 3f2a has another record too"):
        read_records(tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (to_line(RUN)[:80], "not a whole record"),
        (to_line(RUN).replace("0.25", "NaN"), "loss expects"),
        (to_line(RUN).replace("311.5", "NaN"), "fvd expects"),
        (to_line(RUN).replace("0.25", "-1.0"), "loss is -1.0; it must be positive"),
        (to_line(RUN).replace('"loss": 0.25, ', ""), "loss is missing"),
        (to_line(RUN).replace("0.25", "null"), "loss is missing, though the run is done"),
        (to_line(RUN).replace("tokens", "token", 1), "no field"),
        (to_line(RUN).replace('"schema": 1', '"schema": 2'), "schema 2 is not known"),
        ("[1, 2]", "an object of JSON"),
    ],
)
def test_a_corrupted_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_text(to_line(LOST) + line)
    with pytest.raises(UserError, match=message) as raised:
        read_records(path)
    assert f"{path}:2" in str(raised.value)


def test_a_torn_parquet_file_and_an_empty_directory_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no records of runs"):
        read_records(tmp_path)
    write_parquet(tmp_path / "records.parquet", [RUN])
    whole = (tmp_path / "records.parquet").read_bytes()
    (tmp_path / "records.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match="not a file of Parquet"):
        read_records(tmp_path)


def test_lines_are_strict_json() -> None:
    assert json.loads(to_line(LOST))["loss"] is None
    with pytest.raises(ConfigError, match="tokens is nan"):
        RunRecord(run="a", sweep="b", flops=1.0, parameters=1, tokens=float("nan"), loss=1.0)


def test_a_foreign_table_keeps_further_numbers_as_metrics(tmp_path: Path) -> None:
    path = tmp_path / "points.csv"
    path.write_text(
        "Loss,PARAMS,Tokens,flops,Family,FVD,cluster\n"
        "2.5,1e6,2e7,1.3e14,a,310,7\n\n2.25,2000000.4,2e7,2.6e14,b,,7\n"
    )
    first, second = read_csv(path)
    assert (first.loss, first.parameters, first.flops, first.cluster) == (2.5, 10**6, 1.3e14, "7")
    assert (first.metrics, second.metrics) == ({"fvd": 310.0}, {})
    assert (second.run, second.parameters) == ("points.csv:4", 2_000_000)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no points"),
        ("flops,params,tokens,loss\n", "no points under"),
        ("params,tokens,loss\n1,2,3\n", ":1: there is no column 'flops'; FLOPs are counted"),
        ("flops,params,parameters,tokens,loss\n", "more than one column 'parameters'"),
        ("flops,params,tokens,loss\n1,2,3,4\n1,2,3,nan\n", ":3: loss is 'nan'"),
        ("flops,params,tokens,loss\n1,2,three,4\n", ":2: tokens is 'three'"),
        ("flops,params,tokens,loss\n1,2,3,\n", ":2: loss is ''"),
        ("flops,params,tokens,loss\n1,2,3\n", ":2: 3 cells under 4 names"),
        ("flops,params,tokens,loss\n1,0,3,4\n", ":2: parameters is 0; it must be positive"),
        ("flops,params,tokens,loss,fvd\n1,2,3,4,inf\n", ":2: fvd is 'inf'"),
    ],
)
def test_a_bad_table_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "points.csv"
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_csv(path)
