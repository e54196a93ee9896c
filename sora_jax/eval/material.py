"""What a run is scored on: clips of captioned scenes, of its own worlds, or of a set."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from sora_jax.data.buckets import Bucket
from sora_jax.errors import ConfigError
from sora_jax.eval.evaluator import EvaluationConfig
from sora_jax.eval.examples import Example, images, longest, world_examples
from sora_jax.sample.generate import Sampler
from sora_jax.world.scene import WorldConfig
from sora_jax.world.worlds import find_world


@dataclasses.dataclass(frozen=True)
class Networks:
    """Networks that describe clips: a file of I3D's weights (empty: those that are installed), the
    user's own as MODULE:FUNCTION, and the directory where what they make of true clips is kept.
    `clip`: a folder of CLIP, or empty."""

    kept: Path = Path()
    i3d: str = ""
    backbones: tuple[str, ...] = ()
    clip: str = ""


@dataclasses.dataclass(frozen=True)
class Material:
    """What is scored, and the clips to score it on. Facts are known of captioned scenes.
    `simulated`: the size and rate at which the run's worlds are seen, if it is a model of any.
    `captioned`: the world of captioned scenes, with the sizes and rate at which they are seen."""

    sampler: Sampler
    config: EvaluationConfig
    videos: Sequence[Example]
    images: Sequence[Example]
    of_the_world: bool
    simulated: tuple[Bucket, float] | None = None
    networks: Networks = Networks()
    captioned: tuple[WorldConfig, Sequence[Bucket], float] | None = None


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
    captioned = (world, buckets, fps)
    return Material(sampler, config, videos, pictures, True, captioned=captioned)


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
    videos = []
    for place in range(config.prompts):
        world = find_world(config.worlds[place % len(config.worlds)])
        clip = world.clip(config.seed + place, "train", size.frames, size.height, fps)
        videos.append(Example(clip.caption, clip.video, fps, place))
    return Material(sampler, config, videos, [], False, (size, fps))
