"""The procedural world as a random-access source of captioned clips."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from sora_jax.world.caption import caption
from sora_jax.world.render import render
from sora_jax.world.scene import Scene, Style, WorldConfig, sample_scene


@dataclass(frozen=True)
class Clip:
    """A captioned clip: video uint8 [t, h, w, 3]; one frame makes it an image."""

    video: np.ndarray
    caption: str
    fps: float
    clip_id: str


@dataclass(frozen=True)
class WorldSource:
    """One clip of fixed frames, height, width and frame rate for each seed of a range.

    The caption style of a clip is drawn evenly from `styles` (empty: the config's). Item i is a
    pure function of (config, sizes, seeds[i]).
    """

    config: WorldConfig
    frames: int
    height: int
    width: int
    fps: float
    seeds: range
    styles: tuple[Style, ...] = ()

    def __len__(self) -> int:
        return len(self.seeds)

    def __getitem__(self, index: int) -> Clip:
        """Clip `index`; IndexError past the end."""
        scene = self.scene(index)
        video = render(scene, self.frames, self.height, self.width, self.fps)
        generator = np.random.default_rng(np.random.SeedSequence((0xCA97, scene.seed)))
        styles = self.styles or self.config.styles
        style = styles[generator.integers(len(styles))]
        text = caption(scene, style, self.frames == 1, generator)
        return Clip(
            video, text, self.fps, f"world-{scene.seed}-{self.frames}x{self.height}x{self.width}"
        )

    def __iter__(self) -> Iterator[Clip]:
        return (self[index] for index in range(len(self)))

    def scene(self, index: int) -> Scene:
        """The scene of clip `index`."""
        return sample_scene(self.seeds[index], self.width / self.height, self.config)
