"""events.jsonl: whole lines in order, whatever kills a run."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from sora_jax.goodput import read_events
from sora_jax.train import events as module
from sora_jax.train.events import EVENTS_FILE, EventLog, process_start


def read(directory: Path) -> list[dict[str, Any]]:
    return [dict(event) for event in read_events(directory / EVENTS_FILE)]


class Time:
    seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


def test_events_are_written_as_they_happen(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "dit", Time())
    log.event("job_start", 90.0)
    log.event("compile_end", programs=3, seconds=1.5)
    assert read(tmp_path / "dit") == [
        {"time": 90.0, "event": "job_start"},
        {"time": 100.0, "event": "compile_end", "programs": 3, "seconds": 1.5},
    ]


def test_steps_are_told_of_now_and_then_and_before_other_events(tmp_path: Path) -> None:
    now = Time()
    log = EventLog(tmp_path, now, every=5.0)
    log.steps(7, {"data": 0.0, "compute": 0.5})
    for step in range(8, 17):
        now.seconds += 2.0
        log.steps(step, {"data": float(step), "compute": 1.0 + step})
        if step == 11:
            log.event("checkpoint", step=11, seconds=0.25)
    told = [(x["event"], x["time"], x.get("first"), x.get("last")) for x in read(tmp_path)]
    assert told == [
        ("steps", 106.0, 8, 10),
        ("steps", 108.0, 11, 11),
        ("checkpoint", 108.0, None, None),
        ("steps", 114.0, 12, 14),
    ]
    seconds = [event["seconds"] for event in read(tmp_path) if event["event"] == "steps"]
    assert seconds == [
        {"data": 10.0, "compute": 10.5},
        {"data": 1.0, "compute": 1.0},
        {"data": 3.0, "compute": 3.0},
    ]
    log.event("job_end", code=0)
    assert [event["event"] for event in read(tmp_path)][-2:] == ["steps", "job_end"]


def test_a_line_cut_short_by_a_kill_is_left_behind(tmp_path: Path) -> None:
    EventLog(tmp_path, Time()).event("job_start")
    path = tmp_path / EVENTS_FILE
    path.write_text(path.read_text() + '{"time": 101.0, "eve')
    EventLog(tmp_path, Time()).event("job_start")
    assert [event["event"] for event in read(tmp_path)] == ["job_start", "job_start"]
    before = path.read_text()
    EventLog(tmp_path, Time())
    assert path.read_text() == before  # a whole last line needs nothing


def test_one_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "is_first", lambda: False)
    log = EventLog(tmp_path / "dit", Time(), every=0)
    log.event("job_start")
    log.steps(0, {"data": 0.0})
    log.steps(1, {"data": 1.0})
    assert not (tmp_path / "dit").exists()


def test_a_process_knows_when_it_was_started() -> None:
    code = "import time; t = time.time(); from sora_jax.train.events import process_start;"
    code += "print(t, process_start(time.time()))"
    before = time.time()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    interpreter, told = map(float, done.stdout.split())
    tick = 2 / os.sysconf("SC_CLK_TCK")
    assert before - tick <= told <= interpreter + tick
    assert process_start(before) < before


def test_lines_are_json_objects(tmp_path: Path) -> None:
    EventLog(tmp_path, Time()).event("job_end", code=1, reason='a "reason"\nof two lines')
    [line] = (tmp_path / EVENTS_FILE).read_text().splitlines()
    assert json.loads(line)["reason"] == 'a "reason"\nof two lines'
