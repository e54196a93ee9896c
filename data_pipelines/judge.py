"""A table of clips and rules -> the same table with a verdict on every clip.

    python -m data_pipelines.judge --table TABLE --output JUDGED [--rules RULES.json]

Nothing is decoded. Duplicates are looked for among the clips that pass the rules, or lack nothing
but a caption, and the best of each stays. Flags that are not listed here go to Beam.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
from apache_beam.io.parquetio import ReadFromParquet, WriteToParquet
from apache_beam.options.pipeline_options import PipelineOptions

from data_pipelines import rules as rules_config
from data_pipelines import table
from data_pipelines.command import run
from data_pipelines.duplicates import Duplicates
from data_pipelines.rules import NO_CAPTION, RULES, Rule, verdict
from data_pipelines.table import Row, Verdict
from sora_jax.errors import ConfigError


def main(arguments: Sequence[str]) -> None:
    """Parses the command line and runs the pipeline."""
    parser = argparse.ArgumentParser(prog="python -m data_pipelines.judge", description=__doc__)
    parser.add_argument("--table", help="what analyse wrote")
    parser.add_argument("--output", help="folder of the new table")
    parser.add_argument("--rules", help="JSON; the built-in ones by default")
    parser.add_argument(
        "--cosine",
        type=float,
        help="clips whose embeddings are as near as this, below 1, are dropped as well",
    )
    parser.add_argument("--print_rules", action="store_true", help="print the built-in ones")
    chosen, beam_flags = parser.parse_known_args(arguments)
    if chosen.print_rules:
        print(rules_config.dump(RULES))
        return
    if not (chosen.table and chosen.output):
        raise table.TableError("judge needs --table and --output")
    rules = rules_config.load(chosen.rules) if chosen.rules else RULES
    options = PipelineOptions(beam_flags)
    counts = judge(chosen.table, chosen.output, rules, options, cosine=chosen.cosine)
    for name, count in sorted(counts.items()):
        print(f"{name}: {count}")


def judge(
    measured: str,
    output: str,
    rules: Sequence[Rule] = RULES,
    options: PipelineOptions | None = None,
    cosine: float | None = None,
) -> dict[str, int]:
    """Writes the table with verdicts; returns how many clips are kept, and dropped by each rule.

    Args:
        cosine: of embeddings, at which clips are duplicates whatever their thumbnails say.

    Raises:
        TableError: the table is not there or not whole, or something is at the output.
        ConfigError: a rule asks for what the table does not have.
    """
    made_of = table.about(measured)
    _check(rules, measured, cosine)
    table.empty(output)
    with beam.Pipeline(options=options) as pipeline:
        judged = (
            pipeline
            | "read" >> ReadFromParquet(f"{measured}/*.parquet")
            | "rules" >> beam.Map(_judged, rules)
        )
        duplicates = (
            judged | "rows that pass" >> beam.FlatMapTuple(_worth_comparing) | Duplicates(cosine)
        )
        _ = (
            {"judged": judged, "kept_for": duplicates}
            | beam.CoGroupByKey()
            | "verdicts" >> beam.FlatMapTuple(_merged)
            | "write"
            >> WriteToParquet(
                f"{output}/clips",
                table.schema(made_of["scores"], judged=True),
                file_name_suffix=".parquet",
            )
        )
    counts: dict[str, int] = {}
    for found in table.written(output, ["rule"]):
        name = f"dropped: {found['rule']}" if found["rule"] else "kept"
        counts[name] = counts.get(name, 0) + 1
    about = {"rules": rules_config.dump(rules), "cosine": cosine, "verdicts": counts}
    table.finish(output, made_of | about)
    return counts


def _judged(columns: Mapping[str, Any], rules: Sequence[Rule]) -> tuple[str, tuple[Row, Verdict]]:
    row = Row.of(columns)
    return row.clip_id, (row, verdict(row, rules))


def _worth_comparing(clip_id: str, found: tuple[Row, Verdict]) -> Iterator[Row]:
    """Also of clips that lack nothing but a caption: only the best of copies should get one."""
    del clip_id
    row, given = found
    if given.keep or given.failed == (NO_CAPTION,):
        yield row


def _check(rules: Sequence[Rule], measured: str, cosine: float | None) -> None:
    """Tries the rules on the first clip, so that a wrong one stops here and not in a worker."""
    if cosine is not None and not 0 < cosine < 1:
        raise ConfigError(f"--cosine {cosine}: give a number between 0 and 1")
    first = next((row for row in table.rows(measured) if not row["problem"]), None)
    if first is not None:
        found = rules_config.measures(Row.of(first))
        for rule in rules:
            rule.fails(rule.kind, found)
        if cosine is not None and not first["embedding"]:
            raise table.TableError(
                f"{measured} has no embeddings for --cosine: analyse with a --model that embeds"
            )


def _merged(clip_id: str, found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    del clip_id
    for row, given in found["judged"]:
        for kept, rule in found["kept_for"]:
            given = Verdict(False, rule, (rule,), duplicate_of=kept)
        yield row.flat() | given.flat()


if __name__ == "__main__":
    run(main, sys.argv[1:])
