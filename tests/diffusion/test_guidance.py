"""Guidance in closed form: what each part of it makes of given velocities, and what it costs."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.config import ConfigError
from sora_jax.diffusion.conditioning import NoiseField, layout_of, noise_field
from sora_jax.diffusion.guidance import GuidanceConfig, guided
from sora_jax.diffusion.sampler import integrate
from sora_jax.types import Layout
from tests.tiny import places, prefix_given

# A row of a clip of four tokens, one given, and one of three that are generated, and padding; and
# a row of one clip of eight tokens, two of them given.
SEGMENTS = jnp.array([[1, 1, 1, 1, 2, 2, 2, 0], [1] * 8])
FRAMES = jnp.array([[0, 1, 2, 3, 0, 1, 2, 0], range(8)])
PLACES, GIVEN = places(FRAMES, SEGMENTS), jnp.array([[1, 0], [2, 0]])
X, V, NULL, ALONE, NOISE = np.random.default_rng(0).normal(size=(5, 2, 8, 3)).astype(np.float32)
CLIPS = ((0, slice(1, 4)), (0, slice(4, 7)), (1, slice(2, 8)))  # their generated tokens


def field(level: float = 0.6, other: float = 0.6) -> NoiseField:
    """Of both rows' first clips at one level, and of their second clips at another."""
    times = jnp.broadcast_to(jnp.array([level, other]), (2, 2))
    return noise_field(PLACES, *prefix_given(GIVEN, times, jnp.zeros((2, 2))))


def at(time: jax.Array) -> NoiseField:
    """With every clip at this level."""
    return noise_field(PLACES, *prefix_given(GIVEN, jnp.full((2, 2), time), jnp.zeros((2, 2))))


def layout(field: NoiseField) -> Layout:
    return layout_of(field, PLACES)


class Network:
    """Gives V where text is 1 and NULL where it is 0; ALONE where it sees given tokens at level 1.
    Counts its rows at every trace."""

    def __init__(self) -> None:
        self.rows: list[int] = []

    def __call__(self, x: jax.Array, layout: Layout, text: jax.Array) -> jax.Array:
        self.rows.append(len(x))
        parts = len(x) // 2
        given = jnp.take_along_axis(layout.noise_levels, layout.level_index, 1)
        forgets = jnp.any((given == 1) & (layout.segments != 0), 1)[:, None, None]
        v, null, alone = (
            jnp.tile(jnp.asarray(a, x.dtype), (parts, 1, 1)) for a in (V, NULL, ALONE)
        )
        return jnp.where(forgets, alone, jnp.where(text[:, None, None] == 1, v, null))


def push(
    config: GuidanceConfig | float,
    of: NoiseField,
    has_noise: bool = True,
    is_told: tuple[bool, bool] = (True, True),
) -> tuple[Any, list]:
    network = Network()
    generated = of.loss_weight > 0
    noise = jnp.asarray(NOISE) if has_noise else None
    found = guided(network, config)(
        jnp.asarray(X),
        layout(of),
        jnp.ones(2),
        jnp.zeros(2),
        generated,
        noise,
        jnp.array(is_told),
    )
    return np.asarray(found), network.rows


def test_scales_of_one_cost_one_evaluation() -> None:
    config = GuidanceConfig(interval=(0.1, 0.9), rescale=0.7, parallel=0.0, limit=1.0)
    found, rows = push(config, field())
    np.testing.assert_allclose(found, V, rtol=1e-6)
    assert rows == [2]


def test_text_and_history_push_by_scales_of_their_own_in_one_call() -> None:
    for scale, history, rows in (
        (3.0, 1.0, [4]),
        (1.0, 2.5, [4]),
        (3.0, 2.5, [6]),
        (0.0, 0.5, [6]),
    ):
        found, seen = push(GuidanceConfig(scale, history), field())
        expected = V + (scale - 1) * (V - NULL) + (history - 1) * (V - ALONE)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
        assert seen == rows


def test_rows_without_a_caption_are_pushed_by_what_is_given_to_them() -> None:
    found, rows = push(GuidanceConfig(3.0), field(), is_told=(True, False))
    np.testing.assert_allclose(found[0], (V + 2 * (V - NULL))[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found[1], (V + 2 * (V - ALONE))[1], rtol=1e-4, atol=1e-5)
    assert rows == [4]  # as of any scale of text
    asked, _ = push(GuidanceConfig(3.0, 2.5), field(), is_told=(True, False))
    expected = V + 2 * (V - NULL) + 1.5 * (V - ALONE)  # where NULL is V, the first is nothing
    np.testing.assert_allclose(asked, expected, rtol=1e-4, atol=1e-5)


def test_history_costs_nothing_where_nothing_is_given() -> None:
    found, rows = push(GuidanceConfig(history=2.0), field(), has_noise=False)
    np.testing.assert_allclose(found, V, rtol=1e-6)
    assert rows == [2]


def test_without_history_given_tokens_are_noise_and_said_to_be() -> None:
    seen: list[tuple[jax.Array, Layout]] = []

    def velocity(x: jax.Array, layout: Layout, text: jax.Array) -> jax.Array:
        seen.append((x, layout))
        return x

    of = field(0.6, 0.3)
    guided(velocity, GuidanceConfig(history=2.0))(
        jnp.asarray(X),
        layout(of),
        jnp.ones(2),
        jnp.zeros(2),
        of.loss_weight > 0,
        jnp.asarray(NOISE),
    )
    ((x, shown),) = seen
    given = np.asarray((of.loss_weight == 0) & (SEGMENTS != 0))
    levels = np.take_along_axis(np.asarray(shown.noise_levels), np.asarray(shown.level_index), 1)
    np.testing.assert_array_equal(levels[:2], of.per_token()[..., 0])
    expected = np.where(given, 1.0, of.per_token()[..., 0])
    np.testing.assert_array_equal(
        np.where(SEGMENTS, levels[2:], 0), np.where(SEGMENTS, expected, 0)
    )
    np.testing.assert_allclose(x[2:], np.where(given[..., None], NOISE, X), rtol=1e-6)
    np.testing.assert_array_equal(shown.given_segments[:2], np.where(given, SEGMENTS, 0))
    np.testing.assert_array_equal(shown.given_segments[2:], 0)  # noise sees as noise does
    # The field says the same where the function that makes it is told so.
    told = noise_field(PLACES, *prefix_given(GIVEN, of.levels[..., 0], jnp.ones((2, 2))))
    np.testing.assert_array_equal(levels[2:], told.per_token()[..., 0])


def test_only_tokens_in_the_interval_are_guided() -> None:
    config = GuidanceConfig(3.0, interval=(0.5, 0.8))
    found, _ = push(config, field(0.6, 0.9))
    expected = np.where(field(1.0, 0.0).per_token() == 1, 3 * V - 2 * NULL, V)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    found, _ = push(config, field(0.9, 0.2))
    np.testing.assert_allclose(found, V, rtol=1e-6)


def test_a_step_out_of_the_interval_costs_one_evaluation() -> None:
    """Counted as it runs; given tokens at level 0 are in the interval, and ask for nothing."""
    ran: list[int] = []
    network = Network()

    def velocity(x: jax.Array, layout: Layout, text: jax.Array) -> jax.Array:
        jax.debug.callback(lambda: ran.append(len(x)))
        return network(x, layout, text)

    move = guided(velocity, GuidanceConfig(3.0, interval=(0.0, 0.45)))

    def moved(x: jax.Array, of: NoiseField) -> jax.Array:
        return move(x, layout(of), jnp.ones(2), jnp.zeros(2), of.loss_weight > 0)

    clock = jnp.linspace(1.0, 0.0, 6)
    integrate(
        moved,
        at,
        jnp.asarray(X),
        clock,
        "euler",
    ).block_until_ready()
    jax.effects_barrier()
    assert ran == [2, 2, 2, 4, 4]


def test_rescaled_velocities_deviate_as_unguided_ones_over_the_generated_tokens_of_a_clip() -> None:
    plain, _ = push(GuidanceConfig(4.0), field())
    half, _ = push(GuidanceConfig(4.0, rescale=0.5), field())
    full, _ = push(GuidanceConfig(4.0, rescale=1.0), field())
    for row, tokens in CLIPS:
        wanted, found = V[row, tokens].std(), plain[row, tokens].std()
        np.testing.assert_allclose(full[row, tokens].std(), wanted, rtol=1e-5)
        np.testing.assert_allclose(
            full[row, tokens], plain[row, tokens] * wanted / found, rtol=1e-5
        )
    np.testing.assert_allclose(half, (plain + full) / 2, rtol=1e-4, atol=1e-5)


def test_projected_guidance_is_orthogonal_to_the_predicted_data() -> None:
    of = field(0.6, 0.3)
    data = X - np.asarray(of.per_token()) * V
    plain, _ = push(GuidanceConfig(4.0), of)
    found, _ = push(GuidanceConfig(4.0, parallel=0.0), of)
    quarter, _ = push(GuidanceConfig(4.0, parallel=0.25), of)
    for row, tokens in CLIPS:
        change, direction = (a[row, tokens].ravel() for a in (found - V, data))
        whole = (plain - V)[row, tokens].ravel()
        np.testing.assert_allclose(change @ direction, 0.0, atol=1e-4)
        along = whole @ direction / (direction @ direction) * direction
        np.testing.assert_allclose(change, whole - along, rtol=1e-4, atol=1e-5)
        part = (quarter - V)[row, tokens].ravel()
        np.testing.assert_allclose(part, whole - 0.75 * along, rtol=1e-4, atol=1e-5)


def test_the_limit_shortens_what_is_longer() -> None:
    of = field(0.6, 0.3)
    sizes = [
        np.sqrt(np.mean((level * (V - NULL)[row, tokens]) ** 2))
        for (row, tokens), level in zip(CLIPS, (0.6, 0.3, 0.6), strict=True)
    ]
    assert sizes[1] < 0.6 < min(sizes[0], sizes[2])
    plain, _ = push(GuidanceConfig(4.0), of)
    found, _ = push(GuidanceConfig(4.0, limit=0.6), of)
    for (row, tokens), size in zip(CLIPS, sizes, strict=True):
        factor = min(1.0, 0.6 / size)
        np.testing.assert_allclose(
            (found - V)[row, tokens], factor * (plain - V)[row, tokens], rtol=1e-4, atol=1e-5
        )


def test_everything_at_once_is_finite_and_leaves_given_tokens() -> None:
    config = GuidanceConfig(3.0, 2.0, (0.0, 0.9), rescale=0.5, parallel=0.0, limit=0.1)

    def velocity(x: jax.Array, of: NoiseField) -> jax.Array:
        generated = of.loss_weight > 0
        return guided(Network(), config)(
            x, layout(of), jnp.ones(2), jnp.zeros(2), generated, jnp.asarray(NOISE)
        )

    for method in ("heun", "unipc"):
        x = jnp.asarray(X)
        found = integrate(
            velocity,
            at,
            x,
            jnp.linspace(1.0, 0.0, 5),
            method,
        )
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(found[1, :2], x[1, :2])
        np.testing.assert_array_equal(found[0, 0], x[0, 0])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"scale": -1.0}, "must be at least 0"),
        ({"interval": (0.7, 0.3)}, "must be two noise levels"),
        ({"interval": (0.0, 1.5)}, "must be two noise levels"),
        ({"rescale": 1.5}, "must be from 0 to 1"),
        ({"parallel": -0.5}, "must be from 0 to 1"),
        ({"limit": 0.0}, "must be positive, or none"),
    ],
)
def test_impossible_guidance_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(GuidanceConfig(), **changes)
