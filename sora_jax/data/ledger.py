"""The account of a build: a line for all that went in, came out, or was dropped and why."""

import collections
import json
from pathlib import Path
from typing import Any, Literal

Outcome = Literal["emitted", "dropped", "note"]


class Ledger:
    """Lines of {source, outcome, reason, ...}; every source has at least one.

    Outcomes: "emitted" is a clip of the set, with its changes (resized, cropped, ...) as reason;
    "dropped" is a source or a part of one that is not in the set; "note" tells of a source that
    was divided.
    """

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def emitted(self, source: str, clip: str, bucket: str, changes: tuple[str, ...]) -> None:
        self._add(source, "emitted", "; ".join(changes) or "unchanged", clip=clip, bucket=bucket)

    def dropped(self, source: str, reason: str, detail: str = "") -> None:
        """`reason` is a short fixed phrase, which counts are kept of; `detail` says which, how."""
        self._add(source, "dropped", reason, **({"detail": detail} if detail else {}))

    def note(self, source: str, text: str) -> None:
        self._add(source, "note", text)

    def _add(self, source: str, outcome: Outcome, reason: str, **more: str) -> None:
        self.lines.append({"source": source, "outcome": outcome, "reason": reason, **more})

    def counts(self) -> dict[str, int]:
        """Lines by outcome, drops also by reason, emitted clips also by whether they changed."""
        counts: collections.Counter[str] = collections.Counter()
        for line in self.lines:
            counts[line["outcome"]] += 1
            if line["outcome"] == "dropped":
                counts[f"dropped: {line['reason']}"] += 1
            elif line["outcome"] == "emitted" and line["reason"] != "unchanged":
                counts["emitted: changed"] += 1
        return dict(sorted(counts.items()))

    def save(self, path: Path, *, after: bool = False) -> None:
        """Writes the lines, or `after` those that are there."""
        with path.open("a" if after else "w", encoding="utf-8") as file:
            for line in self.lines:
                file.write(json.dumps(line, sort_keys=True, ensure_ascii=False) + "\n")
