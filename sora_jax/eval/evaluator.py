"""Scores a trained run by the suites that are asked for, and keeps what it made to look at."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from sora_jax.data.buckets import Bucket
from sora_jax.errors import ConfigError, nearest
from sora_jax.eval import suites
from sora_jax.eval.examples import Example, images, longest, world_examples
from sora_jax.eval.suite import Found, Store, Suite, Video, collect, metrics_of, score
from sora_jax.sample.generate import Sampler
from sora_jax.world.scene import WorldConfig


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How many clips are made and scored. Seeds start where no set reaches."""

    prompts: int = 64  # videos from captions
    images: int = 64  # images from captions
    animations: int = 32  # videos from a first frame and a caption
    shown: int = 12  # of each kind, on the report
    seed: int = 1_000_000

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


@dataclasses.dataclass(frozen=True)
class Material:
    """What is scored, and the clips to score it on. Facts are known of those of the world."""

    sampler: Sampler
    config: EvaluationConfig
    videos: Sequence[Example]
    images: Sequence[Example]
    of_the_world: bool


def world_material(
    sampler: Sampler,
    config: EvaluationConfig,
    world: WorldConfig,
    buckets: Sequence[Bucket],
    fps: float,
) -> Material:
    """Unseen scenes: videos at the longest of the buckets, images at single frames.

    Raises:
        ConfigError: there is no bucket of several frames.
    """
    if longest(buckets)[0].frames == 1:
        raise ConfigError("data.buckets has no video: nothing that moves can be scored")
    videos = world_examples(world, longest(buckets), fps, config.prompts, config.seed)
    pictures = []
    if images(buckets):
        first = config.seed + config.prompts
        pictures = world_examples(world, images(buckets), fps, config.images, first)
    return Material(sampler, config, videos, pictures, True)


def set_material(
    sampler: Sampler, config: EvaluationConfig, examples: Sequence[Example]
) -> Material:
    """Clips of a set, of which nothing is known but their captions."""
    videos = [example for example in examples if len(example.video) > 1]
    pictures = [example for example in examples if len(example.video) == 1]
    return Material(sampler, config, videos, pictures, False)


def _loss(material: Material) -> list[Suite]:
    return [suites.loss(material.sampler, _every(material))]


def _reconstruction(material: Material) -> list[Suite]:
    return [suites.reconstruction(material.sampler.models.vae, _every(material))]


def _text(material: Material) -> list[Suite]:
    if not material.of_the_world:
        return []
    kinds = {"text_to_video": material.videos, "text_to_image": material.images}
    return [
        suites.captions(name, material.sampler, examples)
        for name, examples in kinds.items()
        if examples
    ]


def _animation(material: Material) -> list[Suite]:
    if not material.videos:
        return []
    if not material.of_the_world:
        return [suites.animation(material.sampler, material.videos, nearest=True)]
    return [suites.animation(material.sampler, material.videos[: material.config.animations])]


def _every(material: Material) -> Sequence[Example]:
    """Clips for what needs no facts; of the world, videos are enough."""
    return material.videos if material.of_the_world else [*material.videos, *material.images]


SUITES: dict[str, Callable[[Material], list[Suite]]] = {
    "reconstruction": _reconstruction,
    "loss": _loss,
    "text": _text,
    "animation": _animation,
}


def chosen_suites(names: Sequence[str], material: Material) -> list[Suite]:
    """The suites of these names, or, of none, all that the clips allow.

    Raises:
        ConfigError: there is none of a name, or the clips do not allow it.
    """
    for name in names:
        if name not in SUITES:
            hint = nearest(name, SUITES) or f"; there are: {', '.join(SUITES)}"
            raise ConfigError(f"there is no suite '{name}'{hint}")
    by_name = {name: SUITES[name](material) for name in names or SUITES}
    for name in names:
        if not by_name[name]:
            raise ConfigError(f"suite {name} has nothing to score on these clips: leave it out")
    return [suite for found in by_name.values() for suite in found]


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
