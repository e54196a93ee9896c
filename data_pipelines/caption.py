"""A judged table -> a table in which the clips that lack nothing but a caption have one.

    python -m data_pipelines.caption --table JUDGED --output CAPTIONED \\
        --endpoint http://HOST/v1 --model NAME --cache CACHE

Only clips that judge would keep are looked at, and each only once: a few frames are sent to the
model. With --every, clips that are kept and have a caption get one more, of another kind. Then
`judge` the new table. Flags that are not listed here go to Beam.
"""

import argparse
import dataclasses
import io
import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import apache_beam as beam
import numpy as np
from apache_beam.io.parquetio import ReadFromParquet, WriteToParquet
from apache_beam.metrics.metric import Metrics
from apache_beam.options.pipeline_options import PipelineOptions

from data_pipelines import table
from data_pipelines.captions import PROMPT, Captioner, Endpoint
from data_pipelines.command import run
from data_pipelines.rules import NO_CAPTION
from data_pipelines.table import Row
from sora_jax.data.cuts import Cut, taken
from sora_jax.data.footage import read_frames, read_image

PICTURES = 4  # of a clip, evenly spaced
SIDE = 512  # pixels of the longer side, at most
AT_ONCE = 16  # clips that are asked about at the same time


def main(arguments: Sequence[str]) -> None:
    """Parses the command line and runs the pipeline."""
    parser = argparse.ArgumentParser(prog="python -m data_pipelines.caption", description=__doc__)
    parser.add_argument("--table", required=True, help="what judge wrote")
    parser.add_argument("--output", required=True, help="folder of the new table")
    parser.add_argument("--endpoint", required=True, help="http://HOST/v1, OpenAI-compatible")
    parser.add_argument("--model", required=True, help="as the endpoint calls it")
    parser.add_argument("--prompt", default=PROMPT)
    parser.add_argument("--every", action="store_true", help="clips that have a caption too")
    parser.add_argument("--cache", help="folder of answers, which are never asked for twice")
    chosen, beam_flags = parser.parse_known_args(arguments)
    captioner = Endpoint(chosen.endpoint, chosen.model, prompt=chosen.prompt, cache=chosen.cache)
    options = PipelineOptions(beam_flags)
    counts = caption(chosen.table, chosen.output, captioner, options, every=chosen.every)
    for name, count in sorted(counts.items()):
        print(f"{name}: {count}")


def caption(
    judged: str,
    output: str,
    captioner: Captioner,
    options: PipelineOptions | None = None,
    *,
    every: bool = False,
) -> dict[str, int]:
    """Writes the table with captions and without verdicts; returns clips by kind of caption.

    `every`: clips that have a caption get one more.

    Raises:
        TableError: the table is not there, not whole or not judged, or something is at the output.
    """
    made_of = table.about(judged)
    if "rules" not in made_of:
        raise table.TableError(f"{judged} has no verdicts: run data_pipelines.judge on it first")
    table.empty(output)
    with beam.Pipeline(options=options) as pipeline:
        rows = pipeline | "read" >> ReadFromParquet(f"{judged}/*.parquet")
        asked = (
            rows
            | "asked about" >> beam.Filter(_is_asked, every)
            | "by asset" >> beam.Map(lambda columns: (columns["asset_id"], Row.of(columns)))
            | "clips of an asset" >> beam.GroupByKey()
            | "frames" >> beam.FlatMapTuple(_with_pictures)
            | "at once" >> beam.BatchElements(min_batch_size=1, max_batch_size=AT_ONCE)
            | "ask" >> beam.FlatMap(_captioned, captioner)
        )
        others = (
            rows
            | "not asked about" >> beam.Filter(lambda columns: not _is_asked(columns, every))
            | "rows" >> beam.Map(Row.of)
        )
        _ = (
            (others, asked)
            | beam.Flatten()
            | "columns" >> beam.Map(Row.flat)
            | "write"
            >> WriteToParquet(
                f"{output}/clips", table.schema(made_of["scores"]), file_name_suffix=".parquet"
            )
        )
    counts: dict[str, int] = {}
    for found in table.written(output, ["caption_kind", "problem"]):
        if not found["problem"]:
            kind = found["caption_kind"] or "without caption"
            counts[kind] = counts.get(kind, 0) + 1
    about = {key: value for key, value in made_of.items() if key not in ("rules", "verdicts")}
    table.finish(output, about | {"captioner": captioner.name})
    return counts


def _is_asked(columns: Mapping[str, Any], every: bool) -> bool:
    return bool(columns["rule"] == NO_CAPTION or (every and columns["keep"]))


def _with_pictures(asset_id: str, rows: Iterable[Row]) -> Iterator[tuple[Row, list[bytes]]]:
    """Every row with JPEGs of its clip; the asset is decoded once."""
    del asset_id
    ordered = sorted(rows, key=lambda row: row.first)
    looked_at = [(row, cut) for row in ordered for cut in _frames(row)]
    pictures: dict[str, list[bytes]] = {row.clip_id: [] for row in ordered}
    with ordered[0].asset().local() as path:
        kind = ordered[0].kind
        frames = iter([read_image(path)]) if kind == "image" else read_frames(path)
        found = taken(frames, [cut for _, cut in looked_at], [row.box for row, _ in looked_at])
        for (row, _), picture in zip(looked_at, found, strict=True):
            pictures[row.clip_id].append(_jpeg(picture[0]))
    yield from ((row, pictures[row.clip_id]) for row in ordered)


def _frames(row: Row) -> list[Cut]:
    """Single frames of a clip, evenly spaced, in the size that they are sent in."""
    left, top, right, bottom = row.box or (0, 0, row.width, row.height)
    shrink = min(1.0, SIDE / max(bottom - top, right - left))
    size = (max(1, round((bottom - top) * shrink)), max(1, round((right - left) * shrink)))
    chosen = np.unique(np.linspace(0, row.frames - 1, PICTURES).astype(int))
    return [Cut(row.first + int(frame), 1, size, ()) for frame in chosen]


def _jpeg(picture: Any) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=85)
    return file.getvalue()


def _captioned(clips: list[tuple[Row, list[bytes]]], captioner: Captioner) -> Iterator[Row]:
    answers = captioner.captions([pictures for _, pictures in clips])
    for (row, _), answer in zip(clips, answers, strict=True):
        if not answer:
            Metrics.counter("sora_jax", "no caption to be had").inc()
        elif row.caption:
            further = json.loads(row.captions or "{}") | {captioner.name: answer}
            yield dataclasses.replace(row, captions=json.dumps(further, sort_keys=True))
            continue
        kind = row.caption_kind or (captioner.name if answer else "")
        yield dataclasses.replace(row, caption=row.caption or answer, caption_kind=kind)


if __name__ == "__main__":
    run(main, sys.argv[1:])
