"""What is given: the shares that training draws, and the noise-level field made of it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.config import ConfigError
from sora_jax.diffusion.conditioning import (
    ConditioningConfig,
    draw_given,
    layout_of,
    noise_field,
)

CONFIG = ConditioningConfig(first_frame=0.25, prefix=0.15, given_noise=0.1)
EXAMPLES = jnp.arange(20_000)
FRAMES = 5
DRAW = jax.jit(draw_given, static_argnums=0)


def drawn(frames: int = FRAMES, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    clip_frames = jnp.full(len(EXAMPLES), frames)
    given, level = DRAW(CONFIG, jax.random.key(seed), EXAMPLES, clip_frames)
    return np.asarray(given), np.asarray(level)


def test_shares_are_those_of_the_config() -> None:
    given, level = drawn()
    longest = FRAMES - 1
    assert set(given) == {0, *range(1, FRAMES)}  # something is always left to generate
    shares = np.bincount(given, minlength=FRAMES) / len(given)
    expected = [0.6, 0.25 + 0.15 / longest, *[0.15 / longest] * (longest - 1)]
    np.testing.assert_allclose(shares, expected, atol=0.012)
    noisy = level[given > 0]
    np.testing.assert_allclose((noisy > 0).mean(), 0.5, atol=0.02)
    assert 0.09 < noisy.max() <= 0.1
    np.testing.assert_allclose(noisy[noisy > 0].mean(), 0.05, atol=0.002)


def test_images_are_never_given() -> None:
    assert not drawn(frames=1)[0].any()


def test_draws_follow_the_example_and_the_key() -> None:
    given, level = drawn()
    order = jax.random.permutation(jax.random.key(5), len(EXAMPLES))
    clip_frames = jnp.full(len(EXAMPLES), FRAMES)
    moved = DRAW(CONFIG, jax.random.key(0), EXAMPLES[order], clip_frames)
    np.testing.assert_array_equal(moved[0], given[order])
    np.testing.assert_array_equal(moved[1], level[order])
    other, _ = drawn(seed=1)
    assert abs(np.corrcoef(given > 0, other > 0)[0, 1]) < 0.05


def test_the_field_gives_a_prefix_and_learns_the_rest() -> None:
    frames = jnp.array([[0, 0, 1, 1, 2, 2, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0]])
    segments = jnp.array([[1] * 6 + [0] * 2, [1] * 4 + [0] * 4])
    field = noise_field(
        frames, segments, *(jnp.array(x)[:, None] for x in ([2, 0], [0.7, 0.4], [0.05, 0.0]))
    )
    levels = np.asarray(field.per_token()[..., 0])
    np.testing.assert_allclose(levels[0, :6], [0.05] * 4 + [0.7] * 2)
    np.testing.assert_allclose(levels[1, :4], 0.4)
    np.testing.assert_array_equal(
        field.loss_weight, [[0] * 4 + [1 / 2] * 2 + [0] * 2, [1 / 4] * 4 + [0] * 4]
    )
    layout = layout_of(field, jnp.zeros((2, 8, 3)), segments)
    found = np.take_along_axis(layout.noise_levels, layout.level_index, 1)
    np.testing.assert_array_equal(found, levels)  # the transformer is told what the path does
    np.testing.assert_array_equal(layout.level_segments, 1)


def test_clips_that_share_a_row_have_each_a_field_of_their_own() -> None:
    frames = jnp.array([[0, 0, 1, 1, 0, 1, 2, 0, 0]])
    segments = jnp.array([[1] * 4 + [2] * 3 + [0] * 2])  # and a third place, left empty
    field = noise_field(
        frames,
        segments,
        jnp.array([[1, 2, -1]]),
        jnp.array([[0.7, 0.4, 0.9]]),
        jnp.array([[0.05, 0.1, 0.2]]),
    )
    levels = np.asarray(field.per_token()[0, :7, 0])
    np.testing.assert_allclose(levels, [0.05, 0.05, 0.7, 0.7, 0.1, 0.1, 0.4])
    np.testing.assert_array_equal(field.loss_weight, [[0, 0, 0.5, 0.5, 0, 0, 1, 0, 0]])
    layout = layout_of(field, jnp.zeros((1, 9, 3)), segments)
    of_levels = np.take_along_axis(np.asarray(layout.level_segments), layout.level_index, 1)
    np.testing.assert_array_equal(of_levels[0, :7], segments[0, :7])


@pytest.mark.parametrize("shares", [(-0.1, 0.2), (0.6, 0.5)])
def test_shares_must_be_shares(shares: tuple[float, float]) -> None:
    with pytest.raises(ConfigError, match="must be shares of the clips, together at most 1"):
        ConditioningConfig(*shares)
