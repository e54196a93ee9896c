"""What a report must not change by: each class's collectives and memory, kept in a file.

A change of the model that makes the compiler gather once more shows here, on any machine, before it
costs a pod. Seconds are left out: they move with every version of the compiler.
"""

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sora_jax.errors import ConfigError
from sora_jax.pod.report import ClassReport

MOST_CHANGE = 0.05  # of the memory at its peak


def summary(reports: Sequence[ClassReport]) -> dict[str, Any]:
    """The compiler's version; and by name of class the bytes at the peak, and every collective's
    calls and bytes."""
    classes = {
        report.name: {
            "peak_bytes": report.peak_bytes,
            "collectives": {kind: dict(use) for kind, use in (report.collectives or {}).items()},
        }
        for report in reports
    }
    return {"libtpu": importlib.metadata.version("libtpu"), "classes": classes}


def check(reports: Sequence[ClassReport], path: Path) -> None:
    """Compares with the summary in a file, or writes it if there is none.

    Raises:
        ConfigError: something differs; names the class and what it was and is.
    """
    found = summary(reports)
    if not path.exists():
        path.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
        return
    kept = json.loads(path.read_text(encoding="utf-8"))
    if kept["libtpu"] != found["libtpu"]:
        raise ConfigError(
            f"{path} was written with libtpu {kept['libtpu']}, this is {found['libtpu']}: install "
            "that one, or delete the file and run the command again"
        )
    classes = found["classes"]
    different = [
        line for name in classes for line in _differences(name, classes[name], kept["classes"])
    ]
    if different:
        raise ConfigError(
            f"{path} has changed: {'; '.join(different)}. If that was meant, delete the file and "
            "run the command again"
        )


def _differences(name: str, found: Mapping[str, Any], kept: Mapping[str, Any]) -> list[str]:
    """One phrase for each thing of a class that is not as it was kept."""
    if name not in kept:
        return [f"{name} is new"]
    was, now = kept[name]["collectives"], found["collectives"]
    lines = [
        f"{name}: {kind} {_said(was.get(kind))}, now {_said(now.get(kind))}"
        for kind in sorted(was.keys() | now.keys())
        if was.get(kind) != now.get(kind)
    ]
    before, after = kept[name]["peak_bytes"], found["peak_bytes"]
    if abs(after - before) > MOST_CHANGE * before:
        lines.append(f"{name}: {before / 2**30:.2f} GiB at the peak, now {after / 2**30:.2f}")
    return lines


def _said(use: Mapping[str, int] | None) -> str:
    return f"{use['calls']} times, {use['bytes']:,} bytes" if use else "never"
