"""What has become of the runs of a queue, as a table."""

import collections
import time
from collections.abc import Sequence

from sora_jax.page import Table
from sora_jax.scaling.queue_files import Entry, logged

HEADER = ("run", "budget", "size", "state", "worker", "step", "loss", "heartbeat")


def status_table(entries: Sequence[Entry], now: float | None = None) -> Table:
    """A row a run: of one that is done the held-out loss, of others that of their log. How long ago
    a heart beat is by this machine's clock and the worker's (`now`: seconds since 1970)."""
    now = time.time() if now is None else now
    return Table("Runs", HEADER, tuple(_row(each, now) for each in entries))


def status_lines(entries: Sequence[Entry]) -> list[str]:
    """How many runs are in which state, why some failed, and which files are damaged."""
    states = collections.Counter(each.state for each in entries)
    lines = [", ".join(f"{count} {state}" for state, count in sorted(states.items()))]
    for entry in entries:
        name = entry.directory.name
        if entry.ended is not None and entry.ended.reason:
            lines.append(f"{name} {entry.ended.status}: {entry.ended.reason}")
        elif entry.failures:
            last = [each for each in entry.leases if each and each.given_back == "failed"][-1]
            lines.append(f"{name} failed once: {last.reason}")
        lines += entry.damaged
    return lines


def _row(entry: Entry, now: float) -> tuple[str, ...]:
    run, name = entry.run, entry.directory.name
    if run is None:
        return (name, "", "", entry.state, "", "", "", "")
    step, loss = logged(entry.directory)
    if entry.ended is not None:
        record = entry.ended.record
        step, loss = (record.steps or 0, record.loss) if record else (step, None)
    last = entry.leases[-1] if entry.is_held else None
    return (
        name,
        f"{run.budget:.3g}",
        f"{run.width}x{run.depth}",
        entry.state,
        last.worker if last else "",
        f"{step:,}/{run.steps:,}",
        "" if loss is None else f"{loss:.4f}",
        f"{max(0.0, now - last.time):.0f} s ago" if last else "",
    )
