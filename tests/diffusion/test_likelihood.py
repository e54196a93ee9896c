"""The likelihood by the flow against densities in closed form, in float64."""

import itertools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sora_jax.diffusion.conditioning import NoiseField, layout_of, noise_field
from sora_jax.diffusion.likelihood import log_likelihood, rademacher_probes
from tests import tiny
from tests.closed_form_flows import Mixture, gaussian, mixture, rolling, together

TOKENS, ROWS = 3, 6
CLOCK = np.linspace(0.0, 1.0, 65)


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("make", [gaussian, mixture])
def test_the_density_of_data_to_a_percent(make: Callable[[], Mixture]) -> None:
    flow = make()
    data = flow.draw(ROWS)
    found = log_likelihood(
        flow.velocity, together(ROWS, TOKENS), jnp.asarray(data), jnp.asarray(CLOCK)
    )
    np.testing.assert_allclose(found.sum(1), flow.log_density(data), rtol=0.01)


def test_the_error_falls_with_the_square_of_the_step() -> None:
    flow = mixture()
    data = flow.draw(ROWS)
    errors = [
        np.abs(
            log_likelihood(
                flow.velocity, together(ROWS, TOKENS), jnp.asarray(data), jnp.linspace(0, 1, n + 1)
            ).sum(1)
            - flow.log_density(data)
        ).max()
        for n in (32, 64)
    ]
    assert errors[0] / errors[1] > 3.5


def test_the_density_of_the_rest_given_the_first_token() -> None:
    """p(rest | first) = p(all) / p(first), and a Gaussian's part is a Gaussian."""
    flow = gaussian()
    data, (mean, covariance) = flow.draw(ROWS), flow.moments()
    found = log_likelihood(
        flow.velocity, together(ROWS, TOKENS, given=1), jnp.asarray(data), jnp.asarray(CLOCK)
    )
    np.testing.assert_array_equal(found[:, 0], 0.0)
    away = data[:, 0] - mean[:2]
    distance = np.einsum("bi,ij,bj->b", away, np.linalg.inv(covariance[:2, :2]), away)
    first = -0.5 * (distance + np.linalg.slogdet(2 * np.pi * covariance[:2, :2])[1])
    np.testing.assert_allclose(found.sum(1), flow.log_density(data) - first, rtol=0.01, atol=0.01)


def test_any_way_from_data_to_noise_gives_the_same() -> None:
    """Each token's divergence is integrated over its own levels."""
    flow = gaussian()
    data = flow.draw(ROWS)
    found = log_likelihood(
        flow.velocity, rolling(ROWS, TOKENS, 0.3), jnp.asarray(data), jnp.asarray(CLOCK)
    )
    np.testing.assert_allclose(found.sum(1), flow.log_density(data), rtol=0.01, atol=0.01)


def test_the_mean_over_all_probes_is_exact() -> None:
    flow, field_at, clock = mixture(), together(ROWS, TOKENS, given=1), jnp.asarray(CLOCK[::8])
    data = jnp.asarray(flow.draw(ROWS))
    signs = np.array(list(itertools.product([-1.0, 1.0], repeat=4))).reshape(16, 1, 2, 2)
    probes = np.broadcast_to(np.pad(signs, ((0, 0), (0, 0), (1, 0), (0, 0))), (16, *data.shape))
    exact = log_likelihood(flow.velocity, field_at, data, clock)
    found = log_likelihood(flow.velocity, field_at, data, clock, jnp.asarray(probes))
    np.testing.assert_allclose(found.sum(1), exact.sum(1), atol=1e-10)
    few = log_likelihood(flow.velocity, field_at, data, clock, jnp.asarray(probes[:2]))
    assert np.abs(few.sum(1) - exact.sum(1)).max() > 1e-3


def test_probes_are_signs_that_follow_the_example() -> None:
    key, examples = jax.random.key(0), jnp.arange(ROWS) + 5
    field = together(ROWS, TOKENS, given=1)(jnp.zeros(()))
    probes = rademacher_probes(key, examples, field, 2, 64)
    assert set(np.unique(probes[:, :, 1:])) == {-1.0, 1.0}
    np.testing.assert_array_equal(probes[:, :, 0], 0.0)
    assert abs(float(probes[:, :, 1:].mean())) < 0.1
    some = together(2, TOKENS, given=1)(jnp.zeros(()))
    np.testing.assert_array_equal(
        rademacher_probes(key, examples[2:4], some, 2, 64), probes[:, 2:4]
    )


def test_a_network_tells_the_likelihood_of_what_it_generates() -> None:
    """Through the paths that have derivatives of their own; given tokens and padding add nothing,
    and probes come to what is exact within three standard errors of their mean."""
    with jax.enable_x64(False):
        model, batch = tiny.randomised(tiny.make_generator), tiny.latent_batch(0, rows=2)
        text, given = model.encode_text(batch.text), jnp.array([[1], [0]])

        def field_at(time: jax.Array) -> NoiseField:
            at = jnp.full((2, 1), time)
            return noise_field(batch, *tiny.prefix_given(given, at, jnp.zeros((2, 1))))

        def velocity(x: jax.Array, field: NoiseField) -> jax.Array:
            return model(x, layout_of(field, batch), text)

        @jax.jit
        def likelihood(probes: jax.Array | None = None) -> jax.Array:
            clock = jnp.linspace(0, 1, 5)
            return log_likelihood(velocity, field_at, batch.latents, clock, probes)

        exact, field = likelihood(), field_at(jnp.zeros(()))
        np.testing.assert_array_equal(exact == 0, field.loss_weight == 0)
        probes = rademacher_probes(jax.random.key(0), batch.example_id[:, 0], field, 4, 64)
        found = likelihood(probes).sum(1)
        each = np.stack([likelihood(probes[i : i + 1]).sum(1) for i in range(16)])
        error = each.std(0, ddof=1) / np.sqrt(64)
        assert (error > 0.01).all()
        assert (np.abs(found - exact.sum(1)) < 3 * error).all()
