"""Which clips are kept: bounds on what was measured, as a config over the table.

A rules file is JSON, a list of {"name", "of", "least", "most", "kind"}; `python -m
data_pipelines.judge --print_rules` prints the ones below to begin with. Changing a bound decodes
nothing again.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, get_args

from data_pipelines.table import Row, Verdict
from sora_jax.errors import ConfigError

NO_CAPTION = "no caption"  # what `caption` can mend
RuleKind = Literal["any", "video", "image"]


@dataclasses.dataclass(frozen=True)
class Rule:
    """A clip fails if the measure `of` is below `least` or above `most`, or cannot be told."""

    name: str
    of: str  # a score, or a measure of `measures`
    least: float = -math.inf
    most: float = math.inf
    kind: RuleKind = "any"  # of clips that it is about

    def __post_init__(self) -> None:
        if self.kind not in get_args(RuleKind):
            raise ConfigError(f"rule {self.name}: kind {self.kind!r} is none of any, video, image")
        if not self.least <= self.most:
            raise ConfigError(f"rule {self.name}: least {self.least} is above most {self.most}")

    def fails(self, kind: str, found: Mapping[str, float]) -> bool:
        """Whether a clip of a kind with these measures is dropped.

        Raises:
            ConfigError: there is no such measure.
        """
        if self.kind not in ("any", kind):
            return False
        if self.of not in found:
            known = ", ".join(sorted(found))
            raise ConfigError(f"rule {self.name}: the table has no measure {self.of!r}: {known}")
        return not self.least <= found[self.of] <= self.most


RULES = (
    Rule("too short", "seconds", least=0.25, kind="video"),
    Rule("too small", "short_side", least=64),
    Rule("text", "text_area", most=0.03),
    Rule("frozen", "static_fraction", most=0.9, kind="video"),
    Rule("still", "motion", least=0.005, kind="video"),
    Rule("cut inside", "cut_inside", most=8.0, kind="video"),
    Rule("dark", "brightness", least=0.04),
    Rule("bright", "brightness", most=0.96),
    Rule("flat", "contrast", least=0.02),
    Rule("blocky", "blockiness", most=3.0),
    Rule("caption too long", "caption_characters", most=5000),
    Rule(NO_CAPTION, "caption_characters", least=1),
)


def measures(row: Row) -> dict[str, float]:
    """What rules may ask of a clip: its scores, seconds, frames, fps, height, width and short side
    in pixels without bars, aspect (width / height), and characters of its caption."""
    left, top, right, bottom = row.box or (0, 0, row.width, row.height)
    height, width = bottom - top, right - left
    return {
        **row.scores,
        "seconds": row.frames / row.fps if row.fps else 0.0,
        "frames": row.frames,
        "fps": row.fps,
        "height": height,
        "width": width,
        "short_side": min(height, width),
        "aspect": width / max(height, 1),
        "caption_characters": len(row.caption),
    }


def verdict(row: Row, rules: Sequence[Rule]) -> Verdict:
    """What the rules say of a clip on its own; a file without clips fails by its problem."""
    if row.problem:
        return Verdict(False, row.problem, (row.problem,))
    found = measures(row)
    failed = tuple(rule.name for rule in rules if rule.fails(row.kind, found))
    return Verdict(not failed, failed[0] if failed else "", failed)


def load(path: str) -> tuple[Rule, ...]:
    """Reads a rules file.

    Raises:
        ConfigError: it is not there, or not a list of rules.
    """
    try:
        listed = json.loads(Path(path).read_text(encoding="utf-8"))
        return tuple(Rule(**each) for each in listed)
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no rules file ({error}): see --print_rules") from error


def dump(rules: Sequence[Rule]) -> str:
    """Rules as a rules file holds them."""
    listed = [
        {
            name: value
            for name, value in dataclasses.asdict(rule).items()
            if value not in (math.inf, -math.inf)
        }
        for rule in rules
    ]
    return json.dumps(listed, indent=1)
