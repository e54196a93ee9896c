"""Accounts of simulated runs are what the simulation knows, to the microsecond."""

import dataclasses
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sora_jax.cli import goodput as command
from sora_jax.errors import UserError
from sora_jax.goodput import KINDS, account, accounts, read_events, table
from sora_jax.train.clock import Clock
from sora_jax.train.events import EVENTS_FILE, EventLog

TICK = 1 / 64  # a whole number of microseconds, and exact in binary


@dataclasses.dataclass
class Simulation:
    """A run that is started, stopped and killed, by a clock of its own, and what it went into."""

    directory: Path
    now: float = 1_700_000_000.0
    saved: int = 0
    truth: dict[str, float] = dataclasses.field(default_factory=lambda: dict.fromkeys(KINDS, 0.0))
    kept: dict[int, float] = dataclasses.field(default_factory=dict)  # computing of each step
    ends: list[str] = dataclasses.field(default_factory=list)

    def wait(self, ticks: int, kind: str) -> float:
        self.now += ticks * TICK
        self.truth[kind] += ticks * TICK
        return ticks * TICK

    def start(self, waits: list[int]) -> tuple[EventLog, Clock]:
        started = self.now
        self.wait(waits[0], "start")
        log = EventLog(self.directory, lambda: self.now, every=0)
        log.event("job_start", started)
        log.event("tpu_init_end")
        self.wait(waits[1], "start")
        log.event("training_preparation_start")
        self.wait(waits[2], "start")
        log.event("training_preparation_end", restored_step=self.saved)
        for step in [step for step in self.kept if step > self.saved]:
            self.truth["lost"] += self.kept.pop(step)
        log.event("compile_end", programs=2, seconds=self.wait(waits[3], "compile"))
        clock = Clock({}, 1, None, lambda: self.now)
        log.steps(self.saved, clock.totals())
        return log, clock

    def session(self, waits: list[int], steps: list[tuple[int, int, int, bool]], end: str) -> None:
        """Steps of (data, compute, other, whether it is saved) ticks; `end`: done, killed, or cut
        in the middle of a line."""
        log, clock = self.start(waits)
        step = self.saved
        for step, (data, compute, other, saves) in enumerate(steps, self.saved + 1):
            with clock.spent("data"):
                self.wait(data, "data")
            with clock.spent("evaluate"):
                self.wait(other, "evaluate")
            with clock.spent("compute"):
                self.kept[step] = compute * TICK
                self.now += compute * TICK
            self.wait(other, "other")
            log.steps(step, clock.totals())
            if saves:
                with clock.spent("checkpoint"):
                    seconds = self.wait(data, "checkpoint")
                log.event("checkpoint", step=step, seconds=seconds)
                self.saved = step
        if end == "done":
            self.wait(waits[0], "other")
            log.steps(step, clock.totals())
            log.event("job_end", code=42, reason="stopped")
            self.ends.append("code 42: stopped")
        else:
            self.ends.append("killed")
            if end == "cut":
                with (self.directory / EVENTS_FILE).open("a") as file:
                    file.write('{"time": 1700000000.5, "event": "ste')

    def expected(self) -> dict[str, float]:
        return {**self.truth, "productive": sum(self.kept.values())}


ticks = st.integers(0, 500)
session = st.tuples(
    st.lists(ticks, min_size=4, max_size=4),
    st.lists(st.tuples(ticks, ticks, ticks, st.booleans()), max_size=6),
    st.sampled_from(["done", "killed", "cut"]),
    ticks,
)


@settings(max_examples=150, deadline=None)
@given(st.lists(session, min_size=1, max_size=5))
def test_a_run_is_accounted_for_as_it_was(
    sessions: list[tuple[list[int], list[tuple[int, int, int, bool]], str, int]],
) -> None:
    with tempfile.TemporaryDirectory() as directory:
        run = Simulation(Path(directory))
        began = run.now
        for number, (waits, steps, end, down) in enumerate(sessions):
            run.session(waits, steps, end)
            if number + 1 < len(sessions):
                run.wait(down, "down")
        found = account(read_events(run.directory / EVENTS_FILE))
    assert found.wall == pytest.approx(run.now - began, abs=1e-6)
    assert sum(round(1e6 * each) for each in found.seconds.values()) == round(1e6 * found.wall)
    # A step that is cut in a line of several is apart to a microsecond.
    assert found.seconds == pytest.approx(run.expected(), abs=1e-5)
    last = "killed, or still running" if run.ends[-1] == "killed" else run.ends[-1]
    assert found.ends == (*run.ends[:-1], last)


def test_lines_of_several_steps_are_lost_in_proportion() -> None:
    events = [
        {"time": 0.0, "event": "job_start"},
        {"time": 10.0, "event": "training_preparation_end", "restored_step": 0},
        {"time": 50.0, "event": "steps", "first": 1, "last": 4, "seconds": {"compute": 40.0}},
        {"time": 60.0, "event": "job_start"},
        {"time": 70.0, "event": "training_preparation_end", "restored_step": 1},
    ]
    found = account(events)
    assert (found.seconds["productive"], found.seconds["lost"]) == (10.0, 30.0)
    assert (found.seconds["start"], found.seconds["down"]) == (20.0, 10.0)
    assert found.goodput == 10 / 70


@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(0, 9), st.integers(0, 3)), max_size=12))
def test_it_adds_up_whatever_clocks_do(steps: list[tuple[float, float, int]]) -> None:
    """Also where the time goes back, and where more seconds are told of than have passed."""
    events: list[dict[str, object]] = [{"time": 100.0, "event": "job_start"}]
    for number, (after, seconds, kind) in enumerate(steps):
        name = ("steps", "checkpoint", "compile_end", "job_start")[kind]
        told = {"compute": seconds, "data": seconds} if name == "steps" else seconds
        event = {"event": name, "step": 1, "first": number, "last": number, "seconds": told}
        events.append({"time": 100.0 + number + after, **event})
    found = account(events)
    assert min(found.seconds.values()) >= 0
    assert sum(found.seconds.values()) == pytest.approx(found.wall, abs=1e-9)


def test_a_run_without_logs_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "dit").mkdir()
    (tmp_path / "dit" / EVENTS_FILE).write_text('{"time": 1.0, "ev')
    with pytest.raises(UserError, match="has no events.jsonl of a stage with anything in it"):
        accounts(tmp_path)


def test_the_command_prints_each_stage(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stage in ("vae", "dit"):
        run = Simulation(tmp_path / stage)
        run.session([64, 0, 0, 64], [(0, 640, 0, True), (0, 128, 0, False)], "killed")
        run.session([64, 0, 0, 0], [(0, 256, 0, True)], "done")
    command.FLAGS(["sora goodput"])
    command.main(["sora goodput", str(tmp_path)])
    printed = capsys.readouterr().out
    found = accounts(tmp_path)
    assert printed.strip() == "\n\n".join(table(stage, found[stage]) for stage in ("vae", "dit"))
    assert "dit: 20.0 s in 2 sessions, 70.0% productive" in printed
    assert "lost                   2.0 s   10.0%" in printed
    assert "session 1: killed\n  session 2: code 42: stopped" in printed
    command.FLAGS(["sora goodput", "--json"])
    command.main(["sora goodput", str(tmp_path)])
    told = json.loads(capsys.readouterr().out)
    assert told["vae"]["seconds"]["productive"] == 14.0
    with pytest.raises(UserError, match="needs the directory of one run"):
        command.main(["sora goodput"])
