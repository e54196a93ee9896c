"""Checkpoints side by side: what they make of the same prompts and noise, and paired scores."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from sora_jax.errors import ConfigError
from sora_jax.eval.clip_scores import difference
from sora_jax.eval.evaluator import Exhibit
from sora_jax.eval.report import exhibit_html
from sora_jax.eval.store import Published
from sora_jax.eval.tables import SECTIONS
from sora_jax.files import write_file
from sora_jax.page import Table, facts_html, page_html, table_html

MADE = "generated"  # the label of clips that a model made
SUMMARY = (
    "Each checkpoint was given the same prompts, frames and noise. Differences are to the first, "
    "clip by clip, with 95 % intervals over clips; a star marks those that 0 lies outside of."
)


@dataclasses.dataclass(frozen=True)
class Compared:
    """A checkpoint: what it is called, where it is from, and what was found by each suite."""

    label: str
    origin: str
    suites: Mapping[str, Published]


def check_questions(compared: Sequence[Compared]) -> None:
    """Raises ConfigError unless all were asked the same."""
    first = compared[0]
    for other in compared[1:]:
        for name in first.suites.keys() | other.suites.keys():
            here, there = first.suites.get(name), other.suites.get(name)
            if here is None or there is None or here.question != there.question:
                raise ConfigError(
                    f"{first.label} and {other.label} were asked different questions by suite "
                    f"{name}: compare runs with the same clips, seeds and noise levels"
                )


def tables(compared: Sequence[Compared]) -> list[Table]:
    """Of each suite: every score of each checkpoint, with its difference to the first's."""
    header = ("", *(each.label for each in compared))
    return [
        Table(SECTIONS.get(name, (name,))[0], header, tuple(_rows(compared, name)))
        for name in compared[0].suites
    ]


def _rows(compared: Sequence[Compared], suite: str) -> list[tuple[str, ...]]:
    first, *others = (each.suites[suite].found.scores for each in compared)
    rows = []
    for name, score in first.items():
        if not score.weights.any():
            continue
        cells = [f"{score.mean():.4g}"]
        for other in others:
            found = difference(other[name], score)
            mark = "*" if found.low > 0 or found.high < 0 else ""
            interval = f"{found.mean:+.3g}{mark}, {found.low:+.3g} to {found.high:+.3g}"
            cells.append(f"{other[name].mean():.4g} ({interval})")
        rows.append((name, *cells))
    return rows


def panel(compared: Sequence[Compared], suite: str) -> list[Exhibit]:
    """What each checkpoint made of the same prompt and noise, in the order of the checkpoints, and
    the true clip last."""
    first = compared[0].suites[suite]
    lines = []
    for place, prompt in sorted(first.prompts.items()):
        clips = {each.label: each.suites[suite].found.clips[MADE][place] for each in compared}
        truth = first.found.clips.get("true", {})
        clips |= {"true": truth[place]} if place in truth else {}
        lines.append(Exhibit(prompt, first.fps[place], clips))
    return lines


def write_comparison(path: Path, compared: Sequence[Compared], made_by: Mapping[str, str]) -> None:
    """Writes the page, which needs no other file.

    Raises:
        UserError: the checkpoints were asked different questions, or the file cannot be written.
    """
    check_questions(compared)
    parts = []
    for name, published in compared[0].suites.items():
        if MADE in published.found.clips:
            clips = "\n".join(map(exhibit_html, panel(compared, name)))
            heading = SECTIONS.get(name, (name,))[0]
            parts.append(f"<h2>{heading}</h2><div class='clips'>{clips}</div>")
    parts += map(table_html, tables(compared))
    facts = [*((each.label, each.origin) for each in compared), *made_by.items()]
    parts.append(facts_html("What was compared", facts))
    write_file(path, page_html("sora_jax: checkpoints compared", SUMMARY, parts))
