"""Scores a trained run by the suites that are asked for, and keeps what it made to look at."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

from sora_jax.data.buckets import Bucket
from sora_jax.errors import ConfigError, nearest
from sora_jax.eval import readers, suites
from sora_jax.eval.examples import Example, images, longest, world_examples
from sora_jax.eval.readers import Reader
from sora_jax.eval.suite import Found, Store, Suite, Video, collect, metrics_of, score
from sora_jax.sample.generate import Sampler
from sora_jax.world.scene import WorldConfig
from sora_jax.world.worlds import WorldName, find_world


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """How many clips are made and scored. Seeds start where no set reaches. `worlds`: those of
    world/worlds.py that the run is a model of, in place of captioned scenes."""

    prompts: int = 64  # videos from captions
    images: int = 64  # images from captions
    animations: int = 32  # videos from a first frame and a caption
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


@dataclasses.dataclass(frozen=True)
class Material:
    """What is scored, and the clips to score it on. Facts are known of captioned scenes.
    `simulated`: the size and rate at which the run's worlds are seen, if it is a model of any."""

    sampler: Sampler
    config: EvaluationConfig
    videos: Sequence[Example]
    images: Sequence[Example]
    of_the_world: bool
    simulated: tuple[Bucket, float] | None = None


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


def simulated_material(
    sampler: Sampler, config: EvaluationConfig, buckets: Sequence[Bucket], fps: float
) -> Material:
    """Unseen clips of the worlds that a run is a model of, in turn."""
    size = longest(buckets)[0]
    videos = [
        Example(clip.caption, clip.video, fps, place)
        for place in range(config.prompts)
        for clip in [
            find_world(config.worlds[place % len(config.worlds)]).clip(
                config.seed + place, "train", size.frames, size.height, fps
            )
        ]
    ]
    return Material(sampler, config, videos, [], False, (size, fps))


def _world(material: Material) -> list[Suite]:
    if material.simulated is None:
        return []
    from sora_jax.eval.world_suites import world_suites

    config = material.config
    args = (*material.simulated, config.prompts, config.seed)
    return world_suites(material.sampler, config.worlds, *args)


def _loss(material: Material) -> list[Suite]:
    return [suites.loss(material.sampler, _every(material))]


def _reconstruction(material: Material) -> list[Suite]:
    return [suites.reconstruction(material.sampler.models.vae, _every(material))]


def _generation(material: Material, names: Sequence[str]) -> list[Suite]:
    """Clips from captions, read in the ways of these names."""
    kinds = {"text_to_video": material.videos, "text_to_image": material.images}
    found = []
    for kind, examples in kinds.items():
        own = {
            name: READERS[name](material, examples)
            for name in names
            if examples and _is_readable(material, name, examples)
        }
        if own:
            found.append(suites.generation(kind, material.sampler, examples, own))
    return found


def _is_readable(material: Material, name: str, examples: Sequence[Example]) -> bool:
    """Facts are known of the world alone, and motion is of videos."""
    if name == "text":
        return material.of_the_world
    return len(examples[0].video) > 1


READERS: dict[str, Callable[[Material, Sequence[Example]], Reader]] = {
    "text": lambda material, examples: readers.facts(material.sampler.models.vae, examples),
    "vbench": lambda material, examples: readers.vbench(examples),
}
DEFAULT = ("reconstruction", "loss", "text", "animation", "world")


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
    "animation": _animation,
    "world": _world,
}


def chosen_suites(names: Sequence[str], material: Material) -> list[Suite]:
    """The suites of these names, or, of none, all that the clips allow.

    Raises:
        ConfigError: there is none of a name, or the clips do not allow it.
    """
    known = (*SUITES, *READERS)
    for name in names:
        if name not in known:
            hint = nearest(name, known) or f"; there are: {', '.join(known)}"
            raise ConfigError(f"there is no suite '{name}'{hint}")
    found = {name: SUITES[name](material) for name in names or DEFAULT if name in SUITES}
    ways = [name for name in names or DEFAULT if name in READERS]
    for name in ways:
        found[name] = _generation(material, [name])
    for name in names:
        if not found[name]:
            raise ConfigError(f"suite {name} has nothing to score on these clips: leave it out")
    # Clips are made once, however many ways they are read in.
    others = [suite for name in found if name in SUITES for suite in found[name]]
    return [*others, *_generation(material, ways)]


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
