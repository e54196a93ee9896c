"""What the wall time of a run went into, across its restarts, from the events that it logged.

Every moment from the first start to the last event counts for one thing, in whole microseconds, so
that the parts add up to the whole:

    productive    computing steps that are kept, each counted once
    lost          computing steps after the checkpoint that a later session went back to
    data, checkpoint, evaluate    the loop waited for them, in steps that are lost too
    start         from a process's start to its first step, but for compiling
    compile
    down          from the end of a session, or the last it told of itself, to the start of the next
    other         the rest: of the loop, and after it
"""

import dataclasses
import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from sora_jax.errors import UserError
from sora_jax.train.events import EVENTS_FILE

STAGES = ("vae", "dit")
KINDS = (
    "productive", "lost", "data", "checkpoint", "evaluate", "start", "compile", "down", "other"
)  # fmt: skip
BEFORE_LOOP = (
    "tpu_init_start",
    "tpu_init_end",
    "training_preparation_start",
    "training_preparation_end",
)
SECOND = 1_000_000  # microseconds
Event = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Account:
    """Of one stage of a run. `seconds`: of each of KINDS; they sum to `wall`. `ends`: how each
    session ended."""

    wall: float
    seconds: dict[str, float]
    ends: tuple[str, ...]

    @property
    def goodput(self) -> float:
        """The share of the time that was productive."""
        return self.seconds["productive"] / self.wall if self.wall else 0.0


@dataclasses.dataclass
class _Session:
    """From a process's start to its end; times are microseconds."""

    start: int
    end: int
    spent: dict[str, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(KINDS, 0))
    computed: list[tuple[int, int, int]] = dataclasses.field(default_factory=list)
    restored: int | None = None  # step; None where it did not come so far
    ended: str | None = None


def read_events(path: Path) -> list[Event]:
    """Events in their order; lines that a kill cut short are left out."""
    events: list[Event] = []
    for line in path.read_text(errors="replace").splitlines():
        try:
            event = json.loads(line)
        except ValueError:
            continue
        if isinstance(event, dict) and isinstance(event.get("time"), (int, float)):
            events.append(event)
    return events


def accounts(directory: Path) -> dict[str, Account]:
    """Of the stages of a run that have logged anything.

    Raises:
        UserError: none has.
    """
    paths = {stage: directory / stage / EVENTS_FILE for stage in STAGES}
    events = {stage: read_events(path) for stage, path in paths.items() if path.exists()}
    found = {stage: account(each) for stage, each in events.items() if each}
    if not found:
        raise UserError(
            f"{directory} has no {EVENTS_FILE} of a stage with anything in it: "
            "name the directory of a run that was trained"
        )
    return found


def account(events: Iterable[Event]) -> Account:
    """Of one stage, from all events that its sessions logged, which are at least one."""
    sessions = _sessions(list(events))
    total, last_end = dict.fromkeys(KINDS, 0), sessions[0].start
    for number, session in enumerate(sessions):
        later = [each.restored for each in sessions[number + 1 :] if each.restored is not None]
        kept_until = min(later, default=None)
        for first, last, compute in session.computed:
            lost = _lost(first, last, compute, kept_until)
            session.spent["lost"] += lost
            session.spent["productive"] += compute - lost
        total["down"] += session.start - last_end
        for kind, spent in session.spent.items():
            total[kind] += spent
        last_end = session.end
    ends = [session.ended or "killed" for session in sessions]
    if sessions[-1].ended is None:
        ends[-1] = "killed, or still running"
    wall = last_end - sessions[0].start
    assert wall == sum(total.values())
    seconds = {kind: spent / SECOND for kind, spent in total.items()}
    return Account(wall / SECOND, seconds, tuple(ends))


def _lost(first: int, last: int, compute: int, kept_until: int | None) -> int:
    """Of the computing of steps `first` to `last`, the share of those after `kept_until`."""
    if kept_until is None or last <= kept_until:
        return 0
    return compute * (last - max(kept_until, first - 1)) // (last - first + 1)


def _sessions(events: list[Event]) -> list[_Session]:
    """The events apart by session, each of which begins with job_start; no time is counted twice,
    also where clocks were set back."""
    groups: list[list[Event]] = []
    for event in events:
        if event.get("event") == "job_start" or not groups:
            groups.append([])
        groups[-1].append(event)
    sessions, end = [], -math.inf
    for group in groups:
        sessions.append(_session(group, end))
        end = sessions[-1].end
    return sessions


def _session(events: list[Event], earliest: float) -> _Session:
    start = int(max(_microseconds(events[0]["time"]), earliest))
    session = _Session(start, start)
    counted, saving, in_loop = start, 0, False  # until when, and what of the rest was checkpoints
    for event in events:
        at = max(_microseconds(event["time"]), session.end)
        session.end, name = at, event.get("event")
        if name == "steps":
            parts = {kind: _microseconds(value) for kind, value in event["seconds"].items()}
            spent = _share(at - counted, parts)
            compute = spent.pop("compute", 0)
            if event["last"] >= event["first"]:
                session.computed.append((event["first"], event["last"], compute))
            else:
                spent["other"] = spent.get("other", 0) + compute
            in_loop = True
        elif name == "compile_end":
            spent = _share(at - counted, {"compile": _microseconds(event["seconds"])})
            if not in_loop:
                spent["start"] = spent.pop("other")
        elif name in BEFORE_LOOP:
            spent = {"start": at - counted}
            session.restored = event.get("restored_step", session.restored)
        else:
            saving += _microseconds(event["seconds"]) if name == "checkpoint" else 0
            session.ended = _ended(event) if name == "job_end" else session.ended
            continue
        _add(session, spent)
        counted, saving = at, 0
    rest = _share(session.end - counted, {"checkpoint": saving})
    if not in_loop:
        rest["start"] = rest.pop("other")
    _add(session, rest)
    return session


def _add(session: _Session, spent: Mapping[str, int]) -> None:
    for kind, value in spent.items():
        session.spent[kind if kind in KINDS else "other"] += value


def _share(length: int, parts: Mapping[str, int]) -> dict[str, int]:
    """A length of time in the given parts, and "other" for the rest; where they come to more than
    it, as two clocks differ a little, they are cut in proportion."""
    total = sum(parts.values())
    if total > length:
        parts = {kind: part * length // total for kind, part in parts.items()}
    rest = length - sum(parts.values())
    return {**parts, "other": parts.get("other", 0) + rest}


def _ended(event: Event) -> str:
    reason = event.get("reason")
    return f"code {event.get('code')}" + (f": {reason}" if reason else "")


def _microseconds(seconds: float) -> int:
    return round(seconds * SECOND)


def table(stage: str, account: Account) -> str:
    """What people read of a stage."""
    sessions = f"{len(account.ends)} session{'s' if len(account.ends) > 1 else ''}"
    lines = [f"{stage}: {account.wall:,.1f} s in {sessions}, {account.goodput:.1%} productive"]
    for kind, seconds in account.seconds.items():
        share = seconds / account.wall if account.wall else 0.0
        lines.append(f"  {kind:12}{seconds:>14,.1f} s {share:>7.1%}")
    for number, end in enumerate(account.ends, 1):
        lines.append(f"  session {number}: {end}")
    return "\n".join(lines)
