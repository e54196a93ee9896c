"""What training clips are given: shares of the patterns, boxes, and what is cut out of a clip."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.config import ConfigError
from sora_jax.diffusion.patterns import (
    FAR_SECONDS,
    ClipSizes,
    ConditioningConfig,
    Pattern,
    draw_appended,
    draw_pattern,
)

CONFIG = ConditioningConfig(first_frame=0.25, prefix=0.15, given_noise=0.1)
EVERY = ConditioningConfig(
    first_frame=0.2, prefix=0.1, box=0.3, independent=0.4, levels=4, key_frames=0.5, elsewhere=0.2
)
EXAMPLES = jnp.arange(20_000)
FRAMES = 5
DRAW = jax.jit(draw_pattern, static_argnums=0)


def sizes(frames: int, *, has_appended: bool = False) -> ClipSizes:
    count = len(EXAMPLES)
    return ClipSizes(
        tokens=jnp.full(count, frames * 24),
        frames=jnp.full(count, frames),
        half_sides=jnp.broadcast_to(jnp.array([2.0, 3.0]), (count, 2)),
        has_appended=jnp.full(count, has_appended),
    )


def drawn(
    config: ConditioningConfig = CONFIG, frames: int = FRAMES, seed: int = 0, **changes: bool
) -> tuple[Pattern, np.ndarray]:
    pattern, level = DRAW(config, jax.random.key(seed), EXAMPLES, sizes(frames, **changes))
    return jax.tree.map(np.asarray, pattern), np.asarray(level)


def has_box(pattern: Pattern) -> np.ndarray:
    return np.isfinite(np.asarray(pattern.box)).all(-1)


def test_shares_are_those_of_the_config() -> None:
    pattern, level = drawn()
    longest = FRAMES - 1
    given = np.asarray(pattern.prefix)
    assert set(given) == {0, *range(1, FRAMES)}  # something is always left to generate
    shares = np.bincount(given, minlength=FRAMES) / len(given)
    expected = [0.6, 0.25 + 0.15 / longest, *[0.15 / longest] * (longest - 1)]
    np.testing.assert_allclose(shares, expected, atol=0.012)
    np.testing.assert_allclose((level > 0).mean(), 0.5, atol=0.02)
    assert 0.09 < level.max() <= 0.1
    np.testing.assert_allclose(level[level > 0].mean(), 0.05, atol=0.002)
    assert not has_box(pattern).any()
    assert (np.asarray(pattern.parts) == 1).all()


def test_boxes_and_parts_have_their_shares_and_lie_in_the_picture() -> None:
    pattern, _ = drawn(EVERY)
    box, inside = np.asarray(pattern.box), has_box(pattern)
    np.testing.assert_allclose(inside.mean(), 0.3, atol=0.012)
    assert not np.asarray(pattern.prefix)[inside].any()
    np.testing.assert_allclose(np.asarray(pattern.is_outside)[inside].mean(), 0.5, atol=0.02)
    assert not np.asarray(pattern.is_outside)[~inside].any()
    np.testing.assert_allclose((np.asarray(pattern.parts) == 4).mean(), 0.4, atol=0.012)
    top, bottom, left, right = box[inside].T
    assert (bottom - top >= 1 - 1e-5).all()
    assert (right - left >= 1.2 - 1e-5).all()
    assert top.min() >= -2 - 1e-5
    assert bottom.max() <= 2 + 1e-5
    assert left.min() >= -3 - 1e-5
    assert right.max() <= 3 + 1e-5
    assert np.std(left) > 0.5


def test_an_image_has_a_box_or_nothing() -> None:
    pattern, _ = drawn(EVERY, frames=1)
    assert not np.asarray(pattern.prefix).any()
    assert has_box(pattern).any()


def test_clips_with_others_beside_them_have_a_prefix_half_of_the_time() -> None:
    pattern, _ = drawn(EVERY, has_appended=True)
    np.testing.assert_allclose((np.asarray(pattern.prefix) > 0).mean(), 0.5, atol=0.012)
    assert not has_box(pattern).any()


def test_draws_follow_the_example_and_the_key() -> None:
    pattern, level = drawn(EVERY)
    order = jax.random.permutation(jax.random.key(5), len(EXAMPLES))
    moved, of_moved = DRAW(EVERY, jax.random.key(0), EXAMPLES[order], sizes(FRAMES))
    for one, other in zip(jax.tree.leaves(moved), jax.tree.leaves(pattern), strict=True):
        np.testing.assert_array_equal(one, other[order])
    np.testing.assert_array_equal(of_moved, level[order])
    other, _ = drawn(EVERY, seed=1)
    both = (np.asarray(pattern.prefix) > 0, np.asarray(other.prefix) > 0)
    assert abs(np.corrcoef(*both)[0, 1]) < 0.05


def test_what_is_cut_out_is_the_end_anywhere_or_shown_long_before() -> None:
    lengths, frames = (5, 1), 17
    draw = jax.jit(draw_appended, static_argnums=(0, 3, 4))
    places = draw(EVERY, jax.random.key(0), EXAMPLES, frames, lengths)
    start, delay, used = (np.asarray(x) for x in (places.start, places.delay, places.is_used))
    far, both = delay[:, 0] == -FAR_SECONDS, used.all(-1)
    ends = ~both
    np.testing.assert_allclose([far.mean(), ends.mean()], [0.2, 0.3], atol=0.012)
    assert used[:, 0].all()
    assert (start[ends, 0] == 12).all()
    for number, latest in enumerate((12, 16)):
        assert set(start[both, number]) == set(range(latest + 1))
    assert (delay[far] == -FAR_SECONDS).all()
    assert not delay[~far].any()


@pytest.mark.parametrize(
    "shares",
    [
        {"first_frame": -0.1},
        {"first_frame": 0.6, "prefix": 0.5},
        {"first_frame": 0.6, "prefix": 0.2, "box": 0.3},
        {"key_frames": 0.6, "elsewhere": 0.5},
        {"independent": 1.5, "levels": 4},
    ],
)
def test_shares_must_be_shares(shares: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be shares of the clips, together at most 1"):
        ConditioningConfig(**shares)


@pytest.mark.parametrize("change", [{"levels": 8}, {"levels": 1}, {"independent": 0.0}])
def test_levels_of_their_own_need_a_share_and_fit_the_table(change: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="levels="):
        dataclasses.replace(EVERY, **change)
