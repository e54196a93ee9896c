"""Scores by suites, and keeps what was made to look at."""

import dataclasses
from collections.abc import Mapping, Sequence

from sora_jax.errors import ConfigError
from sora_jax.eval.suite import Found, Store, Suite, Video, collect, metrics_of, score
from sora_jax.world.worlds import WorldName


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How many clips are made and scored. Seeds start where no set reaches. `worlds`: those of
    world/worlds.py that the run is a model of, in place of captioned scenes."""

    prompts: int = 64  # videos from captions
    images: int = 64  # images from captions
    animations: int = 32  # videos from a first frame and a caption, and of every other task
    shown: int = 12  # of each kind, on the report
    seed: int = 1_000_000
    worlds: tuple[WorldName, ...] = ()

    def __post_init__(self) -> None:
        if min(self.prompts, self.images, self.animations) < 2 or self.shown < 1 or self.seed < 0:
            raise ConfigError(
                f"evaluation: prompts={self.prompts}, images={self.images} and animations="
                f"{self.animations} must be at least 2, shown={self.shown} at least 1 and "
                f"seed={self.seed} not negative"
            )


@dataclasses.dataclass(frozen=True)
class Exhibit:
    """A line of the report: clips that belong together, each with a label."""

    caption: str
    fps: float
    clips: Mapping[str, Video]


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Scores by name, and lines to look at by section."""

    metrics: dict[str, float]
    exhibits: dict[str, list[Exhibit]]


def evaluate(chosen: Sequence[Suite], config: EvaluationConfig, rows: int, store: Store) -> None:
    """Scores what the store lacks; all processes call it."""
    for suite in chosen:
        score(suite, rows, store, config.shown)


def evaluation_of(
    chosen: Sequence[Suite], config: EvaluationConfig, rows: int, store: Store
) -> Evaluation:
    """What scored suites come to, which is published; in one process."""
    metrics: dict[str, float] = {}
    exhibits = {}
    for suite in chosen:
        found = collect(suite, rows, store)
        store.publish(suite, found)
        metrics |= metrics_of(suite, found)
        if found.clips:
            exhibits[suite.name] = _exhibits(suite, found)[: config.shown]
    return Evaluation(metrics, exhibits)


def _exhibits(suite: Suite, found: Found) -> list[Exhibit]:
    places = sorted(next(iter(found.clips.values())))
    return [
        Exhibit(
            suite.examples[place].prompt,
            suite.examples[place].fps,
            {label: clips[place] for label, clips in found.clips.items()},
        )
        for place in places
    ]
