"""Captioned clips to score a run on: unseen scenes of the world, or clips of a set."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8

from sora_jax.data.buckets import Bucket, DataConfig
from sora_jax.data.media import decode_record
from sora_jax.data.sources import ClipSet
from sora_jax.errors import ConfigError
from sora_jax.world.caption import ObjectFacts, facts
from sora_jax.world.scene import WorldConfig
from sora_jax.world.source import WorldSource


@dataclasses.dataclass(frozen=True)
class Example:
    """A true clip, uint8 [t, h, w, 3], with its caption. `facts` are what the caption tells, where
    the world made it; `seed` is that of the sample to be made in its place."""

    prompt: str
    video: UInt8[np.ndarray, "t h w 3"]
    fps: float
    seed: int
    facts: tuple[ObjectFacts, ...] = ()


def world_examples(
    world: WorldConfig, sizes: Sequence[Bucket], fps: float, count: int, first_seed: int
) -> list[Example]:
    """`count` scenes with dense captions, in turn at each of the sizes, seeds from `first_seed`."""
    examples = []
    for number in range(count):
        size, seed = sizes[number % len(sizes)], first_seed + number
        source = WorldSource(
            world, size.frames, size.height, size.width, fps, range(seed, seed + 1), ("dense",)
        )
        clip = source[0]
        told = facts(source.scene(0), is_image=size.frames == 1)
        examples.append(Example(clip.caption, clip.video, clip.fps, seed, told))
    return examples


def longest_examples(clips: ClipSet, data: DataConfig, count: int) -> list[Example]:
    """Up to `count` clips of a set, of the longest of the sizes that a run was made for.

    Raises:
        UserError: the set has no pixels, or no clip of such a size.
    """
    clips.require_pixels("scoring")
    buckets = [data.buckets[index] for index in clips.filled_buckets(data)]
    filled = [bucket for bucket in buckets if not bucket.appended]
    if not filled:
        raise ConfigError(f"{clips.directory} has no clip of the sizes that the run was made for")
    return set_examples(clips, longest(filled), count)


def set_examples(clips: ClipSet, sizes: Sequence[Bucket], count: int) -> list[Example]:
    """Up to `count` clips of a set, evenly spaced within each of the sizes."""
    every = [(clips.source(size), size.frames) for size in sizes]
    sources = [(source, frames) for source, frames in every if len(source)]
    share = -(-count // max(len(sources), 1))
    examples: list[Example] = []
    for source, frames in sources:
        chosen = np.unique(np.linspace(0, len(source) - 1, min(share, len(source))).astype(int))
        for index in chosen:
            record = source[int(index)]
            video = decode_record(record)[:frames]
            examples.append(Example(record.caption, video, record.fps, len(examples)))
    return examples[:count]


def longest(buckets: Sequence[Bucket]) -> tuple[Bucket, ...]:
    """The buckets with most frames."""
    frames = max(bucket.frames for bucket in buckets)
    return tuple(bucket for bucket in buckets if bucket.frames == frames)


def images(buckets: Sequence[Bucket]) -> tuple[Bucket, ...]:
    """The buckets of single frames."""
    return tuple(bucket for bucket in buckets if bucket.frames == 1)
