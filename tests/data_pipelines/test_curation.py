"""Curation of real footage: cuts, duplicates, bars and bad files, with the truth known."""

from types import SimpleNamespace
from typing import Any

import pytest

from data_pipelines import table
from data_pipelines.analyse import analyse
from data_pipelines.judge import judge
from tests.data_pipelines.conftest import BAR

Rows = list[dict[str, Any]]


@pytest.fixture(scope="module")
def judged(curated: SimpleNamespace, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    """Every row of the folder's table, with its verdict."""
    folder = tmp_path_factory.mktemp("tables")
    analyse([f"folder:{curated.folder}"], str(folder / "measured"))
    judge(str(folder / "measured"), str(folder / "judged"))
    return sorted(table.rows(str(folder / "judged")), key=lambda row: (row["name"], row["first"]))


def named(rows: Rows, name: str) -> Rows:
    return [row for row in rows if row["name"] == name]


def test_every_file_is_accounted_for(judged: Rows, curated: SimpleNamespace) -> None:
    media = {path.name for path in curated.folder.iterdir() if path.suffix != ".txt"}
    assert {row["name"] for row in judged} == media
    assert len({row["clip_id"] for row in judged}) == len(judged)
    assert all(bool(row["rule"]) != row["keep"] for row in judged)


def test_bikes_is_cut_exactly(judged: Rows) -> None:
    clips = named(judged, "bikes.mp4")
    assert [row["first"] for row in clips] == [0, 30, 76, 137, 187, 242]
    assert sum(row["frames"] for row in clips) == 250
    assert [row["start"] for row in clips] == pytest.approx([0, 1.2, 3.04, 5.48, 7.48, 9.68])


def test_every_copy_is_found_and_nothing_else(judged: Rows, curated: SimpleNamespace) -> None:
    """Precision and recall of 1 over all clips: of originals all stay, of copies none do."""
    names = {row["clip_id"]: row["name"] for row in judged}
    original_of = {copy: original for original, copies in curated.copies.items() for copy in copies}
    for original in curated.copies:
        for row in named(judged, original):
            assert row["keep"], (
                original,
                row["first"],
                row["rule"],
                names.get(row["duplicate_of"]),
            )
    for copy, original in original_of.items():
        for row in named(judged, copy):
            if row["rule"] == "too short":  # what a cut leaves of a trimmed shot
                continue
            assert row["rule"] == "duplicate", (copy, row["first"], row["frames"], row["rule"])
            assert names[row["duplicate_of"]] == original


def test_a_copy_of_a_shot_stands_for_that_shot(judged: Rows) -> None:
    """Shots of one film are not mixed up: each of the re-encoded copy is of the same frames."""
    shots = {row["clip_id"]: row["first"] for row in named(judged, "bikes.mp4")}
    for row in named(judged, "bikes-reencoded.mp4"):
        assert shots[row["duplicate_of"]] == row["first"]


def test_bad_files_are_dropped_by_the_rule_that_is_meant_for_them(
    judged: Rows, curated: SimpleNamespace
) -> None:
    assert {name: named(judged, name)[0]["rule"] for name in curated.bad} == curated.bad


def test_bars_are_found_within_two_pixels(judged: Rows, curated: SimpleNamespace) -> None:
    videos = [name.removesuffix(".mp4") for name in curated.copies if name.endswith(".mp4")]
    for name in videos:
        for row in named(judged, f"{name}-letterboxed.mp4"):
            left, top, right, bottom = row["box"]
            assert top == pytest.approx(BAR, abs=2), name
            assert bottom == pytest.approx(row["height"] - BAR, abs=2), name
            assert left <= 2
            assert right >= row["width"] - 2


def test_the_varying_rate_is_told(judged: Rows) -> None:
    assert all(row["variable_rate"] for row in named(judged, "bikes-variable.mp4"))
    assert not any(row["variable_rate"] for row in named(judged, "bikes.mp4"))
