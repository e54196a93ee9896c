"""The account of a build: a line for all that went in, came out, or was dropped and why."""

import collections
import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from sora_jax.data.schema import DataError

Outcome = Literal["emitted", "dropped", "note"]


class Ledger:
    """Lines of {source, outcome, reason, ...}; every source has at least one.

    Outcomes: "emitted" is a clip of the set, with its changes (resized, cropped, ...) as reason;
    "dropped" is a source or a part of one that is not in the set; "note" tells of a source that
    was divided. Emitted clips have their frames and rate here, and their scores if they were
    curated: a set of any size tells of its hours and scores without its records being read.
    """

    def __init__(self) -> None:
        self.lines: list[dict[str, Any]] = []

    def emitted(
        self,
        source: str,
        clip: str,
        bucket: str,
        changes: tuple[str, ...],
        frames: int,
        fps: float,
        scores: Mapping[str, float] | None = None,
    ) -> None:
        """`frames` at `fps` are what is stored; `scores` are kept to six digits, if finite."""
        found = {
            name: float(f"{value:.6g}")
            for name, value in sorted((scores or {}).items())
            if math.isfinite(value)
        }
        size = {"clip": clip, "bucket": bucket, "frames": frames, "fps": float(fps)}
        reason = "; ".join(changes) or "unchanged"
        self._add(source, "emitted", reason, **size, **({"scores": found} if found else {}))

    def dropped(self, source: str, reason: str, detail: str = "") -> None:
        """`reason` is a short fixed phrase, which counts are kept of; `detail` says which, how."""
        self._add(source, "dropped", reason, **({"detail": detail} if detail else {}))

    def note(self, source: str, text: str) -> None:
        self._add(source, "note", text)

    def _add(self, source: str, outcome: Outcome, reason: str, **more: Any) -> None:
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


class Emitted(NamedTuple):
    """What the ledger of a set says of one of its clips."""

    bucket: str
    frames: int | None  # None, as `fps`: the set is older than these in the ledger
    fps: float | None
    scores: Mapping[str, float]

    @classmethod
    def of(cls, line: Mapping[str, Any]) -> "Emitted":
        """Raises ValueError, KeyError, TypeError or AttributeError if it is no such line."""
        bucket, scores = line["bucket"], line.get("scores", {})
        if not isinstance(bucket, str):
            raise TypeError(f"bucket {bucket}")
        if not all(map(math.isfinite, scores.values())):
            raise ValueError(f"scores {scores}")
        if "frames" not in line:
            return cls(bucket, None, None, scores)
        frames, fps = line["frames"], line["fps"]
        if not (frames >= 1 and 0 < fps < math.inf):
            raise ValueError(f"{frames} frames at {fps}")
        return cls(bucket, frames, fps, scores)


def emitted_clips(path: Path) -> Iterator[Emitted]:
    """The clips of the set that a saved ledger is of, one at a time.

    Raises:
        DataError: a line is not one of a ledger; names it.
    """
    with path.open("rb") as file:
        for number, text in enumerate(file, 1):
            try:
                line = json.loads(text)
                found = Emitted.of(line) if line["outcome"] == "emitted" else None
            except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
                raise DataError(
                    f"{path}: line {number} cannot be read ({error}): build the set again"
                ) from error
            if found is not None:
                yield found
