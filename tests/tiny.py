"""Networks, batches and meshes so small that a test compiles them in seconds."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jaxtyping import Array

from sora_jax.diffusion.patterns import Pattern, nothing_given
from sora_jax.models.dit import DiTConfig
from sora_jax.models.generator import Generator
from sora_jax.models.latents import token_coordinates
from sora_jax.models.patches import Grid, token_frames
from sora_jax.models.text import TextConfig
from sora_jax.models.vae import VAEConfig
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.types import LatentBatch, Places

VAE = VAEConfig(channels=4, widths=(8,), folds=((4, 4),), blocks=1)
TEXT = TextConfig(depth=1, width=32, heads=2)
DIT = DiTConfig(depth=2, width=32, heads=2, patch=1, rope_theta=100.0)
VOCABULARY = 32
GRID = Grid(frames=3, height=2, width=2)
IMAGE = Grid(frames=1, height=2, width=2)


def randomised(make_model: Callable[[nnx.Rngs], Any], deviation: float = 0.2) -> Any:
    """A model with noise in every parameter: what starts at zero would hide most mistakes.

    The noise is NumPy's, so that nothing is compiled.
    """
    generator = np.random.default_rng(0)

    def fill(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> jax.Array:
        around = 1.0 if "scale" in jax.tree_util.keystr(path) else 0.0
        return jnp.asarray(generator.normal(around, deviation, leaf.shape), leaf.dtype)

    shapes = jax.eval_shape(lambda: make_model(nnx.Rngs(0)))
    return jax.tree_util.tree_map_with_path(fill, shapes)


def make_generator(rngs: nnx.Rngs) -> Generator:
    return Generator(DIT, TEXT, channels=VAE.channels, vocabulary=VOCABULARY, rngs=rngs)


def latent_batch(
    seed: int, rows: int = 4, tokens: int = 16, grids: tuple[Grid, ...] = (GRID, IMAGE)
) -> LatentBatch:
    """Clips of several sizes, each padded to `tokens` tokens; captions are padded too."""
    generator = np.random.default_rng(seed)

    def pad(array: Any) -> np.ndarray:
        array = np.asarray(array)
        return np.pad(array, ((0, tokens - len(array)), *((0, 0),) * (array.ndim - 1)))

    clips = [grids[row % len(grids)] for row in range(rows)]
    text = generator.integers(2, VOCABULARY, (rows, 6))
    text[:, 4:] = 0
    return LatentBatch(
        latents=jnp.stack(
            [pad(generator.normal(1.5, 0.5, (grid.tokens, VAE.channels))) for grid in clips]
        ).astype(jnp.float32),
        coordinates=jnp.stack(
            [pad(token_coordinates(grid, VAE.temporal, jnp.full(1, 8.0))[0]) for grid in clips]
        ),
        segments=jnp.stack([pad(np.ones(grid.tokens, np.int32)) for grid in clips]),
        frames=jnp.stack([pad(token_frames(grid)) for grid in clips]),
        appended=jnp.zeros((rows, tokens), jnp.int32),
        text=jnp.asarray(text, jnp.int32),
        example_id=jnp.arange(rows, dtype=jnp.int32)[:, None] + 100 * seed,
    )


def places(frames: Any, segments: Any, appended: Any = None) -> Places:
    """Tokens that all stand at one place in the picture."""
    frames, segments = jnp.asarray(frames), jnp.asarray(segments)
    appended = jnp.zeros_like(segments) if appended is None else jnp.asarray(appended)
    return Places(jnp.zeros((*frames.shape, 3)), segments, frames, appended)


def prefix_given(prefix: Any, time: Any, level: Any) -> tuple[Pattern, Array]:
    """Pattern and levels of clips [b, s] with so many latent frames given at a level, and the rest
    at a time."""
    prefix = jnp.asarray(prefix)
    pattern = dataclasses.replace(nothing_given(*prefix.shape), prefix=prefix)
    return pattern, jnp.stack([jnp.asarray(time), jnp.asarray(level)], -1)


def one_device_mesh() -> Mesh:
    return make_mesh(MeshConfig(), jax.devices()[:1])


def eight_device_mesh() -> Mesh:
    """Every kind of split at once: replica, fsdp and context 2 each."""
    return make_mesh(MeshConfig(replica=2, fsdp=2, context=2, tensor=1))
