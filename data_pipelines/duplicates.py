"""Clips that are one, over a whole table: candidates by keys, pairs by comparing, then components.

The keys of a clip meet those of others in a shuffle; pairs that share one are compared by their
thumbnails, and if that is wanted by their embeddings too, which tell what is of one content where
the pictures differ; pairs that are alike are edges, and of each component of the graph the best
clip stays. A clip that only embeddings tie to what is kept for it is dropped by a rule of its own.
Clips of one asset never stand for each other: they are different parts of it.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import apache_beam as beam
import networkx
from apache_beam.metrics.metric import Metrics
from threadpoolctl import ThreadpoolController

from data_pipelines import embeddings
from data_pipelines.likeness import ALIKE, Signature, alike, keys
from data_pipelines.rules import measures
from data_pipelines.table import Row

CROWD = 200  # clips that share a key; of more, each is compared with the next few only
NEIGHBOURS = 20
BY_PICTURES = "duplicate"  # the rules that drop them, as the table names them
BY_EMBEDDING = "duplicate by embedding"
Quality = tuple[float, ...]


@dataclasses.dataclass(frozen=True, order=True)
class Known:
    """A clip as a member of a component; the greatest of them is the best."""

    quality: Quality
    clip_id: str
    asset_id: str


@dataclasses.dataclass(frozen=True)
class Compared:
    """What is compared of a clip."""

    known: Known
    likeness: Signature
    embedding: bytes


Edge = tuple[Known, Known, str]  # clips that are one, and by which rule
KeptFor = tuple[str, str]  # clip_id of what is kept for a clip, and the rule that drops that


class Duplicates(beam.PTransform):
    """PCollection of rows -> (clip_id, `KeptFor`), for duplicates only."""

    def __init__(self, cosine: float | None = None) -> None:
        super().__init__()
        self._cosine = cosine

    def expand(self, rows: Any) -> Any:
        compared = rows | "compared" >> beam.Map(lambda row: (row.clip_id, _compared(row)))
        pairs = (
            rows
            | "keys" >> beam.FlatMap(_keyed, embedded=self._cosine is not None)
            | "share a key" >> beam.GroupByKey()
            | "pairs" >> beam.FlatMapTuple(lambda _, clips: _pairs(clips))
        )
        halves = (
            {"clip": compared, "others": pairs}
            | "first of pairs" >> beam.CoGroupByKey()
            | "to the others" >> beam.FlatMapTuple(_to_the_others)
        )
        return (
            {"clip": compared, "others": halves}
            | "second of pairs" >> beam.CoGroupByKey()
            | "compare" >> beam.FlatMap(_edges, self._cosine)
            | "at one place" >> beam.GroupByKey()
            | "components" >> beam.FlatMapTuple(lambda _, edges: kept_for(edges))
        )


def known(row: Row) -> Known:
    """A clip by what is better: a caption, pixels, fewer repeated frames, bits, length."""
    found = measures(row)
    repeated = round(row.scores.get("static_fraction", 0.0), 1)
    captioned = bool(row.caption)
    quality = (
        captioned,
        found["height"] * found["width"],
        -repeated,
        row.bits_a_second,
        row.frames,
    )
    return Known(quality, row.clip_id, row.asset_id)


def _compared(row: Row) -> Compared:
    likeness = Signature.parse(row.thumbnails, row.thumbnail_seconds)
    return Compared(known(row), likeness, row.embedding)


def _keyed(row: Row, *, embedded: bool) -> list[tuple[bytes, tuple[str, str]]]:
    with _one_thread():
        found = [*keys(Signature.parse(row.thumbnails, row.thumbnail_seconds))]
        found += embeddings.keys(row.embedding) if embedded else ()
    return [(row.kind.encode() + key, (row.clip_id, row.asset_id)) for key in found]


def _one_thread() -> Any:
    """In which BLAS takes one thread. Clips are spread over processes already; products as small as
    those of two clips take several times as long where threads wait for each other."""
    return _libraries().limit(limits=1, user_api="blas")


@functools.cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController()


def _pairs(clips: Iterable[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    ordered = sorted(clips)
    if len(ordered) > CROWD:
        Metrics.counter("sora_jax", "crowded keys").inc()
    reach = NEIGHBOURS if len(ordered) > CROWD else len(ordered)
    for place, (one, asset) in enumerate(ordered):
        for other, others_asset in itertools.islice(ordered, place + 1, place + 1 + reach):
            if asset != others_asset:
                yield one, other


def _to_the_others(clip_id: str, found: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    del clip_id
    (clip,) = found["clip"]
    for other in sorted(set(found["others"])):  # once, by however many keys they met
        yield other, clip


def _edges(pairs: tuple[str, Mapping[str, Any]], cosine: float | None) -> list[tuple[str, Edge]]:
    """Under one key, for all edges come to one place."""
    _, found = pairs
    (clip,) = found["clip"]
    with _one_thread():
        rules = [(other, _rule(other, clip, cosine)) for other in found["others"]]
    return [("", (other.known, clip.known, rule)) for other, rule in rules if rule]


def _rule(one: Compared, other: Compared, cosine: float | None) -> str | None:
    """By which two clips are one, if they are."""
    if alike(one.likeness, other.likeness) >= ALIKE:
        return BY_PICTURES
    near = cosine is not None and embeddings.cosine(one.embedding, other.embedding) >= cosine
    return BY_EMBEDDING if near else None


def kept_for(found: Iterable[Edge]) -> Iterator[tuple[str, KeptFor]]:
    """For every clip of a component that is dropped, what is kept for it. The best clip stays, and
    the best of others of its asset, which are no copies of it; for the rest the best stands that is
    like themselves, or, of those, the best of all. The rule is that of pictures where these lead
    from the clip to what is kept, over other copies too."""
    graph, pictures = networkx.Graph(), networkx.Graph()
    for one, other, rule in found:
        graph.add_edge(one, other)
        if rule == BY_PICTURES:
            pictures.add_edge(one, other)
    shown = {
        clip: number
        for number, component in enumerate(networkx.connected_components(pictures))
        for clip in component
    }
    for component in networkx.connected_components(graph):
        best = max(component)
        others = [clip for clip in component if clip.asset_id == best.asset_id]
        for clip in component.difference(others):
            near = [
                [kept for kept in others if edges.has_edge(clip, kept)]
                for edges in (pictures, graph)
            ]
            kept = max(near[0] or near[1] or [best])
            same = clip in shown and shown[clip] == shown.get(kept)
            yield clip.clip_id, (kept.clip_id, BY_PICTURES if same else BY_EMBEDDING)
