"""The noise-level field: what a pattern and levels make of the tokens of rows."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from sora_jax.diffusion.conditioning import layout_of, noise_field
from sora_jax.diffusion.patterns import nothing_given
from sora_jax.types import Places
from tests.tiny import places, prefix_given


def test_the_field_gives_a_prefix_and_learns_the_rest() -> None:
    frames = jnp.array([[0, 0, 1, 1, 2, 2, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]])
    segments = jnp.array([[1] * 6 + [0] * 2, [1] * 4 + [0] * 4])
    given = prefix_given([[2], [0]], [[0.7], [0.4]], [[0.05], [0.0]])
    field = noise_field(places(frames, segments), *given)
    levels = np.asarray(field.per_token()[..., 0])
    np.testing.assert_allclose(levels[0, :6], [0.05] * 4 + [0.7] * 2)
    np.testing.assert_allclose(levels[1, :4], 0.4)
    np.testing.assert_array_equal(
        field.loss_weight, [[0] * 4 + [1 / 2] * 2 + [0] * 2, [1 / 4] * 4 + [0] * 4]
    )
    layout = layout_of(field, places(frames, segments))
    found = np.take_along_axis(layout.noise_levels, layout.level_index, 1)
    np.testing.assert_array_equal(found, levels)  # the transformer is told what the path does
    np.testing.assert_array_equal(layout.level_segments, 1)


def test_clips_that_share_a_row_have_each_a_field_of_their_own() -> None:
    frames = jnp.array([[0, 0, 1, 1, 0, 1, 2, 0, 0]])
    segments = jnp.array([[1] * 4 + [2] * 3 + [0] * 2])  # and a third place, left empty
    given = prefix_given([[1, 2, -1]], [[0.7, 0.4, 0.9]], [[0.05, 0.1, 0.2]])
    field = noise_field(places(frames, segments), *given)
    levels = np.asarray(field.per_token()[0, :7, 0])
    np.testing.assert_allclose(levels, [0.05, 0.05, 0.7, 0.7, 0.1, 0.1, 0.4])
    np.testing.assert_array_equal(field.loss_weight, [[0, 0, 0.5, 0.5, 0, 0, 1, 0, 0]])
    layout = layout_of(field, places(frames, segments))
    of_levels = np.take_along_axis(np.asarray(layout.level_segments), layout.level_index, 1)
    np.testing.assert_array_equal(of_levels[0, :7], segments[0, :7])


def test_outside_a_box_all_is_given() -> None:
    """A picture of 3 x 4 patches, in two frames; of the box the right and bottom edges are out."""
    frame, y, x = (
        axis.ravel() for axis in np.meshgrid(range(2), range(3), range(4), indexing="ij")
    )
    coordinates = np.stack([frame / 8, y - 1.0, x - 1.5], -1)[None]
    ones = jnp.ones((1, 24), jnp.int32)
    where = Places(jnp.asarray(coordinates), ones, jnp.asarray(frame)[None], 0 * ones)
    box = jnp.array([[[-1.5, 0.5, -1.0, 1.0]]])
    pattern = dataclasses.replace(nothing_given(1, 1), box=box)
    field = noise_field(where, pattern, jnp.array([[[0.8, 0.1]]]))
    made = (y < 2) & (x >= 1) & (x < 3)
    np.testing.assert_allclose(field.per_token()[0, :, 0], np.where(made, 0.8, 0.1), rtol=1e-6)
    np.testing.assert_allclose(field.loss_weight[0], made / made.sum(), rtol=1e-6)
    inverse = dataclasses.replace(pattern, is_outside=jnp.ones((1, 1), bool))
    field = noise_field(where, inverse, jnp.array([[[0.8, 0.1]]]))
    np.testing.assert_allclose(field.per_token()[0, :, 0], np.where(made, 0.1, 0.8), rtol=1e-6)


def test_parts_of_consecutive_frames_stand_at_levels_of_their_own() -> None:
    """Of five frames in three parts, of another clip of as many in one; after a given frame."""
    frames, segments = [[0, 1, 2, 3, 4, 0, 1, 2, 3, 4]], [[1] * 5 + [2] * 5]
    everything = nothing_given(1, 2)
    pattern = dataclasses.replace(everything, prefix=jnp.array([[1, 0]]), parts=jnp.array([[3, 1]]))
    levels = jnp.array([[[0.2, 0.4, 0.6, 0.0], [0.9, 0.1, 0.1, 0.0]]])
    field = noise_field(places(frames, segments), pattern, levels)
    expected = [0.0, 0.2, 0.4, 0.4, 0.6, *[0.9] * 5]
    np.testing.assert_allclose(field.per_token()[0, :, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(field.loss_weight[0], [0] + [0.25] * 4 + [0.2] * 5)
    layout = layout_of(field, places(frames, segments))
    np.testing.assert_array_equal(layout.level_segments, [[1] * 4 + [2] * 4])


def test_what_is_appended_is_given_and_changes_nothing_else() -> None:
    frames, segments = [[0, 1, 2, 3, 0, 1, 0, 1]], [[1, 1, 1, 1, 1, 1, 1, 0]]
    appended = [[0, 0, 0, 0, 1, 1, 2, 0]]
    pattern = dataclasses.replace(nothing_given(1, 1), parts=jnp.array([[2]]))
    levels = jnp.array([[[0.3, 0.6, 0.1]]])
    field = noise_field(places(frames, segments, appended), pattern, levels)
    found = np.asarray(field.per_token()[0, :7, 0])
    np.testing.assert_allclose(found, [0.3, 0.3, 0.6, 0.6, 0.1, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(field.loss_weight[0], [0.25] * 4 + [0] * 4)
