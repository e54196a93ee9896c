"""Rows of a shape class: one clip or several, captions beside them, the same on host and device."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.models.latents import lay_out
from sora_jax.models.patches import Grid
from sora_jax.types import EncodedBatch, Text

GRID, TEMPORAL, TOKENS, CLIPS = Grid(3, 1, 2), 4, 20, 4  # three of six tokens fit a row
GRID_AND_ROW = (GRID, TEMPORAL, TOKENS, CLIPS)


def encoded(clips: int = 6) -> EncodedBatch:
    generator = np.random.default_rng(0)
    return EncodedBatch(
        latents=generator.normal(size=(clips, GRID.tokens, 5)).astype(np.float32),
        text=generator.integers(1, 9, (clips, 3)).astype(np.int32),
        fps=np.linspace(8, 24, clips).astype(np.float32),
        example_id=np.arange(clips, dtype=np.int32) + 7,
    )


def test_a_row_holds_as_many_clips_as_fit_one_after_another() -> None:
    batch = encoded()
    rows = lay_out(batch, GRID, TEMPORAL, TOKENS, CLIPS)
    np.testing.assert_array_equal(rows.segments, [[1] * 6 + [2] * 6 + [3] * 6 + [0] * 2] * 2)
    np.testing.assert_array_equal(rows.frames[:, :18], [[0, 0, 1, 1, 2, 2] * 3] * 2)
    np.testing.assert_array_equal(rows.example_id, [[7, 8, 9, 0], [10, 11, 12, 0]])
    for clip in range(6):
        row, place = divmod(clip, 3)
        own = slice(6 * place, 6 * place + 6)
        np.testing.assert_array_equal(rows.latents[row, own], batch.latents[clip])
        np.testing.assert_array_equal(rows.text[row, 3 * place : 3 * place + 3], batch.text[clip])
        alone = lay_out(encoded(), GRID, TEMPORAL, 6)
        np.testing.assert_array_equal(rows.coordinates[row, own], alone.coordinates[clip])
    assert not rows.latents[:, 18:].any()
    assert not rows.text[:, 9:].any()


def test_embeddings_of_captions_say_whose_they_are() -> None:
    batch = encoded()
    present = np.array([[1, 1, 0]] * 6, np.int32)
    text = Text(np.ones((6, 3, 2), np.float32), present)
    rows = lay_out(EncodedBatch(batch.latents, text, batch.fps, batch.example_id), *GRID_AND_ROW)
    assert isinstance(rows.text, Text)
    np.testing.assert_array_equal(rows.text.segments, [[1, 1, 0, 2, 2, 0, 3, 3, 0, 0, 0, 0]] * 2)
    assert rows.text.embeddings.shape == (2, 12, 2)


@pytest.mark.parametrize("clips", [1, CLIPS])
def test_host_and_device_lay_out_alike(clips: int) -> None:
    batch = encoded()
    on_host = lay_out(batch, GRID, TEMPORAL, TOKENS, clips)
    on_device = jax.jit(lay_out, static_argnums=(1, 2, 3, 4))(
        jax.tree.map(jnp.asarray, batch), GRID, TEMPORAL, TOKENS, clips
    )
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(on_host))
    jax.tree.map(np.testing.assert_allclose, on_host, on_device)
    dtypes = [jax.tree.map(lambda x: str(x.dtype), each) for each in (on_host, on_device)]
    assert dtypes[0] == dtypes[1]
