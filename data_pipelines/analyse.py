"""Raw images and videos -> a table of every clip in them and what was measured of it.

    python -m data_pipelines.analyse --source folder:FOOTAGE --output TABLE

Files are named by their bytes, split at cuts while they are decoded, once, and scored; `judge`
says which clips are kept. Only names and numbers are ever shuffled, never pixels. Flags that are
not listed here go to Beam: --runner=DataflowRunner --project=... and so on.
"""

import argparse
import dataclasses
import functools
import hashlib
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import apache_beam as beam
import numpy as np
from apache_beam.io.parquetio import WriteToParquet
from apache_beam.metrics.metric import Metrics
from apache_beam.options.pipeline_options import PipelineOptions

from data_pipelines import model_scores, sources, table
from data_pipelines.assets import Asset
from data_pipelines.bars import without_bars
from data_pipelines.command import run
from data_pipelines.likeness import signature
from data_pipelines.scores import SCORES, Score, scored
from data_pipelines.shots import Clip, Probe, VideoPass, image_clip
from data_pipelines.table import Row
from sora_jax.data.footage import MediaError

COUNTERS = "sora_jax"
Pictured = tuple[Row, np.ndarray]  # and what models see of the clip
Found = tuple[str, int, Asset]  # hash of its bytes, place among those of the same, and the asset


def main(arguments: Sequence[str]) -> None:
    """Parses the command line and runs the pipeline."""
    parser = argparse.ArgumentParser(prog="python -m data_pipelines.analyse", description=__doc__)
    parser.add_argument("--source", action="append", required=True, help="KIND:PLACE; repeatable")
    parser.add_argument("--output", required=True, help="folder of the new table")
    parser.add_argument("--model", action="append", default=[], help="MODULE:FUNCTION; repeatable")
    chosen, beam_flags = parser.parse_known_args(arguments)
    options = PipelineOptions(beam_flags)
    counts = analyse(chosen.source, chosen.output, options, models=tuple(chosen.model))
    for name, count in sorted(counts.items()):
        print(f"{name}: {count}")
    print(f"{chosen.output}: now `python -m data_pipelines.judge --table {chosen.output}`")


def analyse(
    wanted: Sequence[str],
    output: str,
    options: PipelineOptions | None = None,
    scores: tuple[Score, ...] = SCORES,
    models: tuple[str, ...] = (),
) -> dict[str, int]:
    """Writes the table of all that is in the sources; returns its rows by kind and problem.

    Raises:
        SourceError: a source is not there. TableError: something is at the output. ConfigError: a
            model cannot be made, or gives what another score gives.
    """
    versions = model_scores.versions(models, {score.name: score.version for score in scores})
    units = [unit for source in wanted for unit in sources.units(source)]
    table.empty(output)
    with beam.Pipeline(options=options) as pipeline:
        measured = (
            pipeline
            | "sources" >> beam.Create(units)
            | "list" >> beam.FlatMap(sources.assets)
            | "spread files" >> beam.Reshuffle()
            | "hash" >> beam.Map(by_content)
            | "same bytes" >> beam.GroupByKey()
            | "one of each" >> beam.FlatMapTuple(first_and_copies)
            | "spread" >> beam.Reshuffle()
            | "measure" >> beam.FlatMap(rows_of, scores, pictured=bool(models))
        )
        for place in models:  # in the worker that measured, for nothing is shuffled between
            measured |= place >> beam.ParDo(model_scores.AskModel(place))
        _ = (
            measured
            | "columns" >> beam.MapTuple(lambda row, _: row.flat())
            | "write"
            >> WriteToParquet(
                f"{output}/clips", table.schema(versions), file_name_suffix=".parquet"
            )
        )
    counts: dict[str, int] = {}
    for found in table.written(output, ["kind", "problem"]):
        name = found["problem"] or found["kind"]
        counts[name] = counts.get(name, 0) + 1
    about = {"sources": list(wanted), "scores": versions, "models": list(models), "rows": counts}
    table.finish(output, about)
    return counts


def by_content(asset: Asset) -> tuple[str, Asset]:
    """An asset under the hash of its bytes; one that cannot be read is alone under its own name."""
    problem = asset.problem
    if problem is None:
        try:
            return asset.content_id(), asset
        except FileNotFoundError:
            problem = ("missing", asset.url)
        except Exception as error:  # whatever a driver of fsspec raises
            problem = ("cannot be read", f"{type(error).__name__}: {error}")
    return f"no bytes of {asset.url} {asset.name}", dataclasses.replace(asset, problem=problem)


def first_and_copies(content: str, found: Iterable[Asset]) -> Iterator[Found]:
    """The asset that stands for all of the same bytes, a captioned one if there is any; the others
    with that as their problem."""
    # All that assets may differ in, so that every run takes the same one.
    first, *copies = sorted(found, key=lambda asset: (not asset.caption, repr(asset)))
    yield content, 0, first
    for number, copy in enumerate(copies, 1):
        problem = copy.problem or ("same bytes", first.name)
        yield content, number, dataclasses.replace(copy, problem=problem)


def rows_of(
    found: Found, scores: tuple[Score, ...], *, pictured: bool = False
) -> Iterator[Pictured]:
    """The rows of an asset: its clips, or one that says why there are none; with pictures for
    models if these are wanted."""
    content, number, asset = found
    if asset.problem is None:
        try:
            with asset.local() as path:
                rows = list(_clip_rows(content, asset, path, scores, pictured))
        except MediaError as error:
            asset = dataclasses.replace(asset, problem=(error.reason, error.detail))
        except Exception as error:  # a file of strangers must not end the pipeline
            detail = f"{type(error).__name__}: {error}"
            asset = dataclasses.replace(asset, problem=("cannot be measured", detail))
        else:
            Metrics.counter(COUNTERS, "clips").inc(len(rows))
            yield from rows
            return
    assert asset.problem is not None
    reason, detail = asset.problem
    Metrics.counter(COUNTERS, reason).inc()
    # Two rows of a table may name one file, which the number tells apart.
    name = hashlib.sha256(f"{number} {asset.url} {asset.name}".encode()).hexdigest()[:16]
    known = "" if content.startswith("no bytes") else content
    row = _row(known, asset)
    detail = sources.printable(detail)
    row = dataclasses.replace(row, clip_id=f"none-{name}", problem=reason, detail=detail)
    yield row, model_scores.NO_PICTURES


def _row(content: str, asset: Asset) -> Row:
    return Row(
        clip_id="",
        asset_id=content,
        url=asset.url,
        name=asset.name,
        offset=asset.offset,
        length=asset.length,
        record=asset.record,
        kind=asset.kind,
        caption=asset.caption or "",
        caption_kind="given" if asset.caption else "",
        captions=sources.further_captions(asset),
        licence=asset.licence or "",
        provenance=json.dumps(dict(asset.provenance), sort_keys=True),
    )


def _clip_rows(
    content: str, asset: Asset, path: Path, scores: tuple[Score, ...], pictured: bool
) -> Iterator[Pictured]:
    measured = functools.partial(_measured, _row(content, asset), scores, pictured)
    if asset.kind == "image":
        clip = image_clip(path)
        probe = Probe(1, 1.0, False, 0, "full", path.suffix[1:], 8.0 * path.stat().st_size)
        row, pictures = measured(clip)
        yield _probed(row, probe), pictures
        return
    video = VideoPass(path)
    # Rows before probes: frames and rate of the whole are known at its end only.
    rows = [measured(clip) for clip in video.clips()]
    probe = video.probe()
    yield from ((_probed(row, probe), pictures) for row, pictures in rows)


def _measured(row: Row, scores: tuple[Score, ...], pictured: bool, clip: Clip) -> Pictured:
    height, width = clip.size
    clip, box = without_bars(clip)
    compared = signature(clip)
    row = dataclasses.replace(
        row,
        clip_id=f"{row.asset_id[:16]}-{clip.first}-{clip.first + clip.frames}",
        first=clip.first,
        frames=clip.frames,
        start=clip.start,
        end=clip.end,
        height=height,
        width=width,
        box=box,
        thumbnails=compared.thumbnails.tobytes(),
        thumbnail_seconds=compared.seconds,
        scores=scored(clip, scores),
    )
    return row, model_scores.chosen(clip) if pictured else model_scores.NO_PICTURES


def _probed(row: Row, probe: Probe) -> Row:
    return dataclasses.replace(
        row,
        fps=probe.fps,
        asset_frames=probe.frames,
        variable_rate=probe.variable_rate,
        rotation=probe.rotation,
        colour_range=probe.colour_range,
        codec=probe.codec,
        bits_a_second=probe.bits_a_second,
    )


if __name__ == "__main__":
    run(main, sys.argv[1:])
