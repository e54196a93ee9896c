"""Velocity matching counts generated tokens only, each sample alike; guidance mixes two answers."""

import jax
import jax.numpy as jnp
import numpy as np

from sora_jax.diffusion.conditioning import NoiseField, noise_field
from sora_jax.diffusion.guidance import guided
from sora_jax.diffusion.levels import LEVEL_BINS, by_noise_level
from sora_jax.diffusion.loss import velocity_matching
from sora_jax.diffusion.path import interpolate
from tests.tiny import places, prefix_given

SHAPE = (3, 8, 2)
SEGMENTS = jnp.array([[1] * 8, [1] * 4 + [0] * 4, [1] * 8])
FRAMES = jnp.array([[0, 0, 1, 1, 2, 2, 3, 3], [0] * 8, [0] * 8])
DATA, NOISE = jax.random.normal(jax.random.key(0), (2, *SHAPE))


def field() -> NoiseField:
    """A clip with two frames given, a padded image, and a clip that is given whole."""
    time, level = jnp.array([[0.7], [0.4], [0.5]]), jnp.array([[0.05], [0.0], [0.0]])
    return noise_field(places(FRAMES, SEGMENTS), *prefix_given([[2], [0], [1]], time, level))


def test_the_right_velocity_costs_nothing_and_a_wrong_one_its_square_per_sample() -> None:
    def wrong_by(error: float) -> np.ndarray:
        each = velocity_matching(lambda x: NOISE - DATA + error, DATA, NOISE, field())
        return np.asarray(each).sum(-1)

    np.testing.assert_array_equal(wrong_by(0.0), 0)
    # The same error costs the same in a clip of 4 learned tokens, padded or not; none in the given.
    np.testing.assert_allclose(wrong_by(0.5), [0.25, 0.25, 0], rtol=1e-5)


def test_given_tokens_and_padding_are_not_learned() -> None:
    weight = field().loss_weight

    def loss(error: jax.Array) -> jax.Array:
        rows = velocity_matching(lambda x: NOISE - DATA + error, DATA, NOISE, field())
        return jnp.sum(rows)

    gradient = np.asarray(jax.grad(loss)(jnp.ones(SHAPE)))
    assert gradient[np.asarray(weight) > 0].all()
    assert not gradient[np.asarray(weight) == 0].any()


def test_sums_by_noise_level_are_those_of_the_tokens_at_it() -> None:
    """Against NumPy, token by token; level 1 is in the last bin, given tokens are in none."""
    frames, segments = jnp.tile(FRAMES, (1, 2)), jnp.concatenate([SEGMENTS, 2 * SEGMENTS], 1)
    time = jnp.array([[0.7, 0.05], [0.4, 1.0], [0.59, 0.6]])
    level = jnp.array([[0.05, 0.3], [0.0, 0.0], [0.1, 0.0]])
    given = prefix_given([[2, 1], [0, 0], [1, 0]], time, level)
    row = noise_field(places(frames, segments), *given)
    values = np.random.default_rng(0).normal(size=segments.shape) * np.asarray(row.loss_weight)
    expected = np.zeros((3, LEVEL_BINS))
    for (i, k), index in np.ndenumerate(np.asarray(row.level_index)):
        bin_of = min(int(np.asarray(row.levels)[i].ravel()[index] * LEVEL_BINS), LEVEL_BINS - 1)
        expected[i, bin_of] += values[i, k]
    found = by_noise_level(jnp.asarray(values, jnp.float32), row)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    weights = np.asarray(by_noise_level(row.loss_weight, row))
    np.testing.assert_allclose(
        weights, [[1, 0, 0, 1, 0], [0, 0, 1, 0, 1], [0, 0, 0, 1, 0]], rtol=1e-5
    )


def test_the_network_sees_each_token_at_its_own_level() -> None:
    seen = []
    velocity_matching(lambda x: seen.append(x) or x, DATA, NOISE, field())
    expected = interpolate(DATA, NOISE, field().per_token())
    np.testing.assert_array_equal(seen[0], expected)
    np.testing.assert_allclose(
        seen[0][0, :4], 0.95 * DATA[0, :4] + 0.05 * NOISE[0, :4], rtol=1e-5, atol=1e-6
    )


def test_guidance_scales_from_unconditional_over_conditional_to_beyond() -> None:
    x, layout = DATA, {"level": jnp.arange(3.0)}

    rows = []

    def velocity(x: jax.Array, layout: dict[str, jax.Array], text: jax.Array) -> jax.Array:
        rows.append(len(x))
        return jnp.sin(x) * text[:, None, None] + layout["level"][:, None, None]

    text, null = jnp.array([1.0, 2.0, 3.0]), jnp.array([0.0, 0.5, -1.0])
    conditional, unconditional = velocity(x, layout, text), velocity(x, layout, null)
    for scale, expected in (
        (0.0, unconditional),
        (1.0, conditional),
        (3.0, unconditional + 3 * (conditional - unconditional)),
    ):
        rows.clear()
        found = guided(velocity, scale)(x, layout, text, null)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        assert rows == [len(x) if scale == 1 else 2 * len(x)]
