"""The five procedural worlds by name, and their clips: for training, held out, and beyond."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import numpy as np
from jaxtyping import UInt8

from sora_jax.errors import ConfigError, nearest
from sora_jax.world import bounce, cube, occluder, painter, pan
from sora_jax.world.splits import IN_DISTRIBUTION, Cell, Split

LEAST_FRAMES = 13
"""What it takes for three actions of the painter, of which two make any turn from any start."""

Truth = TypeVar("Truth")


@dataclass(frozen=True)
class WorldClip(Generic[Truth]):
    """A captioned clip, video uint8 [t, h, w, 3], and all that determines it."""

    video: UInt8[np.ndarray, "t h w 3"]
    caption: str
    fps: float
    truth: Truth
    clip_id: str


@dataclass(frozen=True)
class World(Generic[Truth]):
    """How clips of a world are drawn from seeds, painted in pixels and told in words.

    `sample` takes a seed, frames, frames per second, a split and a cell of the grid of speeds and
    sizes; `render` a truth and the height and width of the frame in pixels. Frames are square.
    """

    name: str
    sample: Callable[[int, int, float, Split, Cell], Truth]
    render: Callable[[Truth, int], UInt8[np.ndarray, "t h w 3"]]
    caption: Callable[[Truth], str]

    def clip(
        self,
        seed: int,
        split: Split,
        frames: int = 32,
        size: int = 64,
        fps: float = 16.0,
        cell: Cell = IN_DISTRIBUTION,
    ) -> WorldClip[Truth]:
        """The clip of a seed. Of clips to be tested in the training split, the seeds must be others
        than those trained on.

        Raises ConfigError for fewer than `LEAST_FRAMES` frames.
        """
        if frames < LEAST_FRAMES:
            raise ConfigError(
                f"world {self.name}: {frames} frames are too short to show what it is about: give"
                f" {LEAST_FRAMES} or more"
            )
        truth = self.sample(seed, frames, fps, split, cell)
        where = "" if cell == IN_DISTRIBUTION else f"-speed{cell.speed}-size{cell.size}"
        return WorldClip(
            self.render(truth, size),
            self.caption(truth),
            fps,
            truth,
            f"{self.name}-{split}{where}-{seed}-{frames}x{size}x{size}",
        )


WorldName = Literal["bounce", "occluder", "pan", "cube", "painter"]

WORLDS: dict[WorldName, World[Any]] = {
    "bounce": World("bounce", bounce.sample, bounce.render, bounce.caption),
    "occluder": World("occluder", occluder.sample, occluder.render, occluder.caption),
    "pan": World("pan", pan.sample, pan.render, pan.caption),
    "cube": World("cube", cube.sample, cube.render, cube.caption),
    "painter": World("painter", painter.sample, painter.render, painter.caption),
}


def find_world(name: str) -> World[Any]:
    """The world of this name.

    Raises:
        ConfigError: there is none.
    """
    if name not in WORLDS:
        raise ConfigError(
            f"there is no world {name!r}{nearest(name, WORLDS)}: give one of {', '.join(WORLDS)}"
        )
    return WORLDS[name]


@dataclass(frozen=True)
class WorldClips:
    """One clip of a world for each seed of a range, made when asked for. Item i is a pure function
    of the world, the sizes and seeds[i]."""

    world: World[Any]
    split: Split
    seeds: range
    frames: int
    size: int
    fps: float
    cell: Cell = IN_DISTRIBUTION

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> WorldClip[Any]:
        """Clip `index`; IndexError past the end."""
        seed = self.seeds[index]
        return self.world.clip(seed, self.split, self.frames, self.size, self.fps, self.cell)

    def __iter__(self) -> Iterator[WorldClip[Any]]:
        return (self[index] for index in range(len(self)))
