"""The samplers against accurate solutions of flows in closed form, in float64."""

import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from sora_jax.diffusion.conditioning import NoiseField
from sora_jax.diffusion.path import token_noise
from sora_jax.diffusion.sampler import Method, integrate
from sora_jax.sharding.rules import rows_sharding
from tests.closed_form_flows import gaussian, mixture, rolling, solution, together
from tests.tiny import eight_device_mesh

TOKENS, CHANNELS = 3, 2
METHODS: tuple[Method, ...] = ("euler", "heun", "dpm_solver", "unipc", "sde")
SHAPE = (4, TOKENS, CHANNELS)
NOISE = np.random.default_rng(1).standard_normal(SHAPE)
FieldAt = Callable[[jax.Array], NoiseField]


@pytest.fixture(autouse=True)
def double_precision() -> Iterator[None]:
    with jax.enable_x64(True):
        yield


def noise_at(step: jax.Array) -> jax.Array:
    return jax.random.normal(jax.random.fold_in(jax.random.key(7), step), SHAPE)


@functools.cache
def accurate(start: float, end: float) -> np.ndarray:
    """The flow of the mixture from NOISE at `start`, to ten digits or so."""
    field_at, flow = together(len(NOISE), TOKENS), mixture()
    velocity = jax.jit(lambda x, t: flow.velocity(x, field_at(t)))

    def slope(t: float, flat: np.ndarray) -> np.ndarray:
        return np.asarray(velocity(flat.reshape(SHAPE), t)).ravel()

    how = {"method": "DOP853", "rtol": 1e-10, "atol": 1e-12}
    return solve_ivp(slope, (start, end), NOISE.ravel(), **how).y[:, -1].reshape(SHAPE)


def errors(method: Method, start: float, end: float, counts: tuple[int, ...]) -> np.ndarray:
    """Of so many steps, the root mean square against the accurate solution."""
    field_at, flow = together(len(NOISE), TOKENS), mixture()
    found = [
        integrate(
            flow.velocity, field_at, jnp.asarray(NOISE), jnp.linspace(start, end, n + 1), method
        )
        for n in counts
    ]
    return np.array([np.sqrt(np.mean((x - accurate(start, end)) ** 2)) for x in found])


def order(counts: tuple[int, ...], errors: np.ndarray) -> float:
    """The slope of the error over the length of a step, both as logarithms."""
    return -float(np.polyfit(np.log(counts), np.log(errors), 1)[0])


def test_the_accurate_solution_of_a_gaussian_is_the_one_in_closed_form() -> None:
    flow, field_at = gaussian(), together(len(NOISE), TOKENS)
    times = jnp.linspace(1.0, 0.0, 401)
    found = integrate(flow.velocity, field_at, jnp.asarray(NOISE), times, "heun")
    np.testing.assert_allclose(found, solution(flow, NOISE), atol=1e-5)


@pytest.mark.parametrize(
    ("method", "expected"), [("euler", 1), ("heun", 2), ("dpm_solver", 2), ("unipc", 3)]
)
def test_order_of_convergence_where_lambda_is_finite(method: Method, expected: int) -> None:
    """UniC raises the second order of its predictor by one."""
    counts = (64, 128, 256, 512)
    assert order(counts, errors(method, 0.95, 0.05, counts)) == pytest.approx(expected, abs=0.05)


@pytest.mark.parametrize(
    ("method", "expected"), [("euler", 1), ("heun", 2), ("dpm_solver", 2), ("unipc", 2)]
)
def test_order_of_convergence_from_noise_to_data(method: Method, expected: int) -> None:
    """At both ends h does not get shorter with the steps. Those of UniPC that are of lower order
    there make its second; the errors of DPM-Solver++, which fall off as 1 / k^3 at the k-th step,
    of the square of its distance, sum up to a logarithm: log(n) / n^2."""
    counts = (64, 128, 256, 512)
    found = errors(method, 1.0, 0.0, counts)
    if method == "dpm_solver":
        found /= np.log(counts)
    assert order(counts, found) > expected - 0.05
    assert found[1] < {1: 0.02, 2: 1e-3}[expected]


@pytest.mark.parametrize("method", [method for method in METHODS if method != "heun"])
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
def test_one_prediction_of_the_data_is_followed_exactly(method: Method, steps: int) -> None:
    """Without Heun, which asks for a velocity where there is no noise."""
    data = jnp.asarray(np.random.default_rng(2).standard_normal(SHAPE))
    found = integrate(
        lambda x, field: (x - data) / field.per_token(),
        together(len(NOISE), TOKENS),
        jnp.asarray(NOISE),
        jnp.linspace(1.0, 0.0, steps + 1),
        method,
        noise_at,
    )
    np.testing.assert_allclose(found, data, atol=1e-14)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("given_level", [0.0, 0.07])
def test_given_tokens_do_not_move_by_a_bit(method: Method, given_level: float) -> None:
    field_at = together(len(NOISE), TOKENS, 2, given_level)
    times = jnp.linspace(1.0, 0.0, 6)
    found = integrate(mixture().velocity, field_at, jnp.asarray(NOISE), times, method, noise_at)
    np.testing.assert_array_equal(found[:, :2], NOISE[:, :2])
    assert np.abs(found[:, 2:] - NOISE[:, 2:]).min() > 0


@pytest.mark.parametrize("method", METHODS)
def test_tokens_that_roll_are_as_each_alone(method: Method) -> None:
    """Waiting at level 1, or being done, is nothing to the history of a step; nor are others."""
    flow, field_at, times = mixture(tokens=1), rolling(len(NOISE), TOKENS, 0.3), 17
    clock = jnp.linspace(1.0, 0.0, times)

    def alone(x: jax.Array, field: NoiseField) -> jax.Array:
        """Every token a clip of its own."""
        levels = field.per_token().reshape(-1, 1, 1)
        one = levels[:, 0]
        own = NoiseField(levels, jnp.zeros(one.shape, jnp.int32), jnp.ones(one.shape))
        return flow.velocity(x.reshape(-1, 1, CHANNELS), own).reshape(x.shape)

    together_rolled = integrate(alone, field_at, jnp.asarray(NOISE), clock, method, noise_at)
    levels = np.stack([field_at(time).per_token()[0, :, 0] for time in clock]).round(12)
    for token in range(TOKENS):
        (moving,) = np.nonzero(np.diff(levels[:, token]))
        assert 4 < len(moving) < times - 1  # it waits, or is done before the others
        found = integrate(
            flow.velocity,
            together(len(NOISE), 1),
            jnp.asarray(NOISE[:, token : token + 1]),
            jnp.asarray(levels[moving[0] : moving[-1] + 2, token]),
            method,
            lambda step, token=token, first=moving[0]: noise_at(first + step)[:, token][:, None],
        )
        np.testing.assert_allclose(
            together_rolled[:, token], found[:, 0], atol=1e-10, equal_nan=False
        )


@pytest.mark.parametrize("method", ["dpm_solver", "unipc"])
def test_a_pause_is_no_step(method: Method) -> None:
    flow, field_at = mixture(), together(len(NOISE), TOKENS)
    clock = np.linspace(1.0, 0.0, 9)
    through, paused = (
        integrate(flow.velocity, field_at, jnp.asarray(NOISE), jnp.asarray(times), method)
        for times in (clock, np.sort(np.append(clock, clock[[3, 3, 6]]))[::-1])
    )
    np.testing.assert_allclose(paused, through, atol=1e-12)


def end_covariance(method: Method, field_at: FieldAt, steps: int) -> np.ndarray:
    """Of what is made of noise, without sampling: for Gaussian data it is linear in all noise."""

    def run(noises: jax.Array) -> jax.Array:
        start, later = noises[0][None], noises[1:]
        clock = jnp.linspace(1.0, 0.0, steps + 1)
        sampled = integrate(
            gaussian().velocity, field_at, start, clock, method, lambda step: later[step][None]
        )
        return sampled.reshape(-1)

    noises = jnp.zeros((steps + 1, TOKENS, CHANNELS))
    by_noise = np.asarray(jax.jit(jax.jacrev(run))(noises)).reshape(TOKENS * CHANNELS, -1)
    return by_noise @ by_noise.T


@pytest.mark.parametrize("method", METHODS)
def test_tokens_that_roll_and_depend_on_each_other_have_the_moments_of_the_data(
    method: Method,
) -> None:
    field_at, (_, covariance) = rolling(1, TOKENS, 0.3), gaussian().moments()
    coarse, fine = (
        np.abs(end_covariance(method, field_at, steps) - covariance).max() for steps in (32, 64)
    )
    assert fine < {"euler": 0.12, "heun": 1e-3, "sde": 0.03}.get(method, 0.01)
    assert coarse / fine > {"euler": 1.8, "heun": 3.8}.get(method, 3.0)


def test_the_stochastic_sampler_has_weak_order_two() -> None:
    """Up to a logarithm, as the deterministic one that it shares equation (2) with."""
    counts, (_, covariance) = (32, 64, 128), gaussian().moments()
    found = [
        np.abs(end_covariance("sde", together(1, TOKENS), steps) - covariance).max()
        for steps in counts
    ]
    assert order(counts, found / np.log(counts)) == pytest.approx(2, abs=0.15)


def test_stochastic_samples_of_a_mixture_have_its_moments() -> None:
    rows, flow = 8192, mixture()
    key, examples = jax.random.key(3), jnp.arange(rows)

    def noise_at(step: jax.Array) -> jax.Array:
        return token_noise(jax.random.fold_in(key, step), examples, TOKENS, CHANNELS)

    found = integrate(
        flow.velocity, together(rows, TOKENS), noise_at(99), jnp.linspace(1, 0, 65), "sde", noise_at
    )
    flat, (mean, covariance) = np.asarray(found).reshape(rows, -1), flow.moments()
    np.testing.assert_allclose(flat.mean(0), mean, atol=0.08)  # three standard errors
    np.testing.assert_allclose(np.cov(flat.T), covariance, atol=0.2)
    # Noise of its own: what a sample began with says little of where it ends.
    start = np.asarray(noise_at(99)).reshape(rows, -1)
    assert abs(np.corrcoef(flat[:, 0], start[:, 0])[0, 1]) < 0.05


def test_stochastic_samples_are_the_same_on_one_device_and_on_eight() -> None:
    flow, mesh, seeds = mixture(), eight_device_mesh(), jnp.arange(8) + 3

    def sample(seeds: jax.Array) -> jax.Array:
        def noise_at(step: jax.Array) -> jax.Array:
            return token_noise(jax.random.fold_in(jax.random.key(0), step), seeds, TOKENS, CHANNELS)

        clock = jnp.linspace(1.0, 0.0, 9)
        field_at = rolling(len(seeds), TOKENS, 0.3)
        return integrate(flow.velocity, field_at, noise_at(99), clock, "sde", noise_at)

    one = jax.jit(sample)(seeds)
    sharding = rows_sharding(mesh)
    spread = jax.jit(sample, out_shardings=sharding)(jax.device_put(seeds, sharding))
    assert len(spread.sharding.device_set) == 8
    np.testing.assert_allclose(spread, one, atol=1e-12)
    np.testing.assert_allclose(jax.jit(sample)(seeds[2:5]), one[2:5], atol=1e-12)


def test_the_stochastic_sampler_asks_for_noise() -> None:
    with pytest.raises(ValueError, match="needs noise_at"):
        integrate(mixture().velocity, together(4, TOKENS), jnp.asarray(NOISE), jnp.ones(2), "sde")


def test_steps_are_compiled_once_whatever_the_levels() -> None:
    traced = []

    def velocity(x: jax.Array, field: NoiseField) -> jax.Array:
        traced.append(field)
        return x

    for method, evaluations in zip(METHODS, (1, 2, 1, 1, 1), strict=True):
        traced.clear()
        integrate(
            velocity,
            rolling(len(NOISE), TOKENS, 0.3),
            jnp.asarray(NOISE),
            jnp.linspace(1.0, 0.0, 30),
            method,
            noise_at,
        )
        assert len(traced) == evaluations
