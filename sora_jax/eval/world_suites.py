"""What a run knows of the procedural worlds: clips from a first frame and a caption, measured.

For each world there are a suite of unseen clips of the kind trained on, one of combinations held
back, one of speeds and sizes beyond, and for the painter one of pairs under other actions. Every
score stands beside those of the truth, the truth through the autoencoder, the first frame frozen,
noise, and the training clip whose first frame is nearest.

    world/bounce/composite               mean score, with its interval
    world/bounce/composite/scaled        the better of frozen and noise is 0, truth_vae is 1
    world/bounce/composite/coverage      share of clips in which there is a value
    world/bounce/composite/median        of the values
    world/bounce/truth_vae/composite     as above, of a column
    world/bounce/copied                  share of clips nearer to training than to unseen clips
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from sora_jax.data.buckets import Bucket
from sora_jax.errors import ConfigError
from sora_jax.eval.clip_scores import Score, of_values, prefixed
from sora_jax.eval.examples import Example
from sora_jax.eval.reconstruction import reconstruct
from sora_jax.eval.suite import Found, Suite, Video, placed
from sora_jax.eval.worlds.interaction import measure_pair
from sora_jax.eval.worlds.memorisation import memorisation, nearest
from sora_jax.eval.worlds.table import (
    COMPOSITE,
    Column,
    Scores,
    collect,
    measure,
    score_columns,
    tabulate,
)
from sora_jax.sample.generate import Sampler
from sora_jax.sample.requests import Request
from sora_jax.world.painter import counterfactual
from sora_jax.world.splits import IN_DISTRIBUTION, Cell, Split, ood_grid
from sora_jax.world.worlds import WorldClip, WorldClips, find_world

TRAINING = 1_000  # clips among which copies are looked for, and as many unseen ones
UNSEEN_SEED = 500_000  # of the first of those
DIVIDED = 4  # a cell of the grid has so many times fewer clips


@dataclasses.dataclass(frozen=True)
class View:
    """A world of a name at the size and rate that a run sees it."""

    name: str
    bucket: Bucket
    fps: float

    def clips(
        self, split: Split, seed: int, count: int, cell: Cell = IN_DISTRIBUTION
    ) -> WorldClips:
        """So many, of seeds from one on."""
        seeds, frames, size = range(seed, seed + count), self.bucket.frames, self.bucket.height
        return WorldClips(find_world(self.name), split, seeds, frames, size, self.fps, cell)


@dataclasses.dataclass(frozen=True)
class Tested:
    """Clips of a world to test a run on, in order."""

    world: str
    clips: Sequence[WorldClip[Any]]

    def examples(self) -> list[Example]:
        """Seeds of the samples are their places."""
        return [
            Example(clip.caption, clip.video, clip.fps, place)
            for place, clip in enumerate(self.clips)
        ]


def world_suites(
    sampler: Sampler, worlds: Sequence[str], bucket: Bucket, fps: float, count: int, seed: int
) -> list[Suite]:
    """The suites of these worlds, of `count` clips each, from a seed on that no set reaches.

    Raises:
        ConfigError: there is no such world, or its frames are not square.
    """
    if bucket.height != bucket.width:
        raise ConfigError(
            f"worlds are seen in square frames, and {bucket.name} is not: give a square bucket"
        )
    return [
        suite
        for name in worlds
        for suite in _of_world(sampler, View(name, bucket, fps), count, seed)
    ]


def _of_world(sampler: Sampler, view: View, count: int, seed: int) -> list[Suite]:
    @functools.cache
    def others(start: int) -> list[Video]:
        return [clip.video for clip in view.clips("train", start, TRAINING)]

    suites = []
    splits: tuple[Split, ...] = ("train", "held_out")
    for split in splits:
        tested = Tested(view.name, list(view.clips(split, seed, count)))
        suites.append(_world(sampler, tested, split, others))
    cells = [cell for cell in ood_grid() for _ in range(max(2, count // DIVIDED))]
    beyond = [view.clips("train", seed + k, 1, cell)[0] for k, cell in enumerate(cells)]
    suites.append(_grid(sampler, Tested(view.name, beyond), cells))
    if view.name == "painter":
        suites.append(_pairs(sampler, Tested(view.name, list(view.clips("train", seed, count)))))
    return suites


def _world(
    sampler: Sampler, tested: Tested, split: Split, others: Callable[[int], list[Video]]
) -> Suite:
    """Metrics of a split beside those of what takes no model. `others`: clips of training from a
    seed on."""
    part = "" if split == "train" else f"{split}/"
    prefix, examples = f"world/{tested.world}/{part}", tested.examples()
    every = range(len(tested.clips))
    metrics = _collected(tested, every, [clip.video for clip in tested.clips]).metrics[:-1]

    def find(places: Sequence[int]) -> Found:
        truths = [tested.clips[place].video for place in places]
        made = _made(sampler, [examples[place] for place in places])
        training, unseen = others(0), others(UNSEEN_SEED)
        starts = [video[:1] for video in training]
        recalled = nearest([truth[:1] for truth in truths], starts).index
        columns: dict[Column, Sequence[Video]] = {
            "model": made,
            "truth": truths,
            "truth_vae": reconstruct(sampler.models.vae, truths),
            "nearest_train": [training[index] for index in recalled],
        }
        own = [tested.clips[place].truth for place in places]
        found = score_columns(tested.world, own, columns, metrics, places[0])
        arrays: dict[str, np.ndarray] = {}
        scores: dict[str, Score] = {}
        for column, of_clips in found.items():
            arrays |= {f"{column} values": of_clips.values, f"{column} scores": of_clips.scores}
            name = "" if column == "model" else f"{column}/"
            scores |= prefixed(f"{prefix}{name}", _clip_scores(of_clips))
        scores[f"{prefix}copied"] = of_values(memorisation(made, training, unseen).nearer)
        shown = {"generated": made, "true": truths}
        return Found(scores, arrays, placed(places, shown))

    def further(found: Found) -> Mapping[str, float]:
        names = (*metrics, COMPOSITE)
        columns: dict[Any, Scores] = {}
        for key, array in found.arrays.items():
            column, _, kind = key.partition(" ")
            if kind == "values":
                columns[column] = Scores(names, array, found.arrays[f"{column} scores"])
        return _table(prefix, columns)

    return Suite(f"world_{tested.world}{part and '_held_out'}", examples, find, further)


def _table(prefix: str, columns: Mapping[Column, Scores]) -> dict[str, float]:
    """What `summary` does not give: places on the scale, coverages and medians."""
    metrics: dict[str, float] = {}
    for entry in tabulate(columns):
        column = "" if entry.column == "model" else f"{entry.column}/"
        name = f"{prefix}{column}{entry.metric}"
        metrics |= {f"{name}/coverage": entry.coverage, f"{name}/median": entry.median}
        if entry.column in ("model", "nearest_train"):
            low, high = entry.scaled_interval
            metrics |= {
                f"{name}/scaled": entry.scaled,
                f"{name}/scaled/low": low,
                f"{name}/scaled/high": high,
            }
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def _grid(sampler: Sampler, tested: Tested, cells: Sequence[Cell]) -> Suite:
    """The composite of each cell of speed and size, which the clips are of, of the model and of the
    truth through the autoencoder, which has not seen such sizes either."""
    examples = tested.examples()

    def find(places: Sequence[int]) -> Found:
        truths = [tested.clips[place].video for place in places]
        made = _made(sampler, [examples[place] for place in places])
        decoded = reconstruct(sampler.models.vae, truths)
        scores = {}
        for column, videos in (("", made), ("truth_vae/", decoded)):
            composite = _clip_scores(_collected(tested, places, videos))[COMPOSITE]
            for cell in dict.fromkeys(cells):
                inside = np.array([cells[place] == cell for place in places], float)
                name = f"world/{tested.world}/ood/speed{cell.speed}-size{cell.size}/{column}"
                scores[f"{name}{COMPOSITE}"] = Score(composite.values, inside)
        return Found(scores, {}, placed(places, {"generated": made, "true": truths}))

    return Suite(f"world_{tested.world}_ood", examples, find)


def _pairs(sampler: Sampler, tested: Tested) -> Suite:
    """Clips from one first frame and one noise under two strings of actions."""
    examples = tested.examples()
    rivals = [counterfactual(clip.truth, k, "train") for k, clip in enumerate(tested.clips)]
    world = find_world(tested.world)

    def find(places: Sequence[int]) -> Found:
        own = [examples[place] for place in places]
        other = [
            dataclasses.replace(examples[place], prompt=world.caption(rivals[place]))
            for place in places
        ]
        both = _made(sampler, own), _made(sampler, other)
        found = [
            measure_pair(video, rival, tested.clips[place].truth, rivals[place])
            for place, video, rival in zip(places, *both, strict=True)
        ]
        scores = prefixed(f"world/{tested.world}/pairs/", _clip_scores(collect(found)))
        shown = {"generated": both[0], "other actions": both[1]}
        return Found(scores, {}, placed(places, shown))

    captions = " | ".join(world.caption(rival) for rival in rivals)
    return Suite(f"world_{tested.world}_pairs", examples, find, settings=captions)


def _collected(tested: Tested, places: Sequence[int], videos: Sequence[Video]) -> Scores:
    """Scores of videos of the clips at some places."""
    clips = [tested.clips[place] for place in places]
    pairs = zip(videos, clips, strict=True)
    return collect([measure(tested.world, video, clip.truth) for video, clip in pairs])


def _clip_scores(scores: Scores) -> dict[str, Score]:
    """By metric; one that a clip gives no occasion for was not asked there."""
    return {
        name: Score(np.nan_to_num(scores.scores[:, k]), scores.asked[:, k].astype(float))
        for k, name in enumerate(scores.metrics)
    }


def _made(sampler: Sampler, examples: Sequence[Example]) -> list[Video]:
    """From first frames and captions."""
    requests = []
    for example in examples:
        frames, height, width = example.video.shape[:3]
        size = (frames, height, width, example.fps, example.seed)
        requests.append(Request(example.prompt, *size, example.video[:1]))
    return [sample.video for sample in sampler.generate(requests)]
