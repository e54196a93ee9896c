"""The parametric law: known numbers come back, by Huber and by least absolute deviation."""

import numpy as np
import pytest
from scipy.optimize import minimize

from sora_jax.scaling.parametric import (
    DELTAS,
    Loss,
    Runs,
    best_law,
    cluster_weights,
    fit_parametric,
    grid_of_starts,
    log_loss,
    minimise,
    numbers,
)
from sora_jax.scaling.points import points_of
from tests.scaling.laws import EXPONENT, TRUTH, sweep

WANTED = {**TRUTH, "a": EXPONENT}


def runs_of(seed: int = 0, noise: float = 0.005) -> tuple[Runs, tuple[np.ndarray, ...]]:
    points, _ = points_of(sweep(seed, noise), "the test")
    arrays = (points.parameters, points.tokens, points.losses)
    return Runs.of(*arrays), (*arrays, points.clusters)


@pytest.mark.parametrize("loss", ["huber", "lad"])
def test_without_noise_the_law_comes_back(loss: Loss) -> None:
    runs, _ = runs_of(noise=0.0)
    theta, _, agreeing = best_law(runs, loss)
    found = numbers(runs.centred(theta, -1))
    for name, value in WANTED.items():
        assert float(found[name]) == pytest.approx(value, rel=1e-3)
    assert agreeing > 0.75


def test_slopes_are_those_of_differences() -> None:
    runs, _ = runs_of()
    theta = grid_of_starts(runs)[[7]]
    _, slopes = log_loss(theta, runs.model, runs.data)
    for index in range(5):
        step = np.zeros(5)
        step[index] = 1e-6
        up, down = (log_loss(theta + sign * step, runs.model, runs.data)[0] for sign in (1, -1))
        np.testing.assert_allclose(slopes[0, index], (up - down)[0] / 2e-6, atol=1e-7)


def test_the_optimum_of_huber_is_that_of_another_minimiser() -> None:
    """SciPy's, which takes the gradient by differences and has its own way down."""
    runs, _ = runs_of(3, 0.01)
    theta, value, agreeing = best_law(runs, "huber")
    delta = DELTAS["huber"][-1]

    def objective(at: np.ndarray) -> float:
        size = np.abs(log_loss(at[None], runs.model, runs.data)[0][0] - runs.loss)
        return float(np.where(size < delta, size**2 / 2, delta * (size - delta / 2)).sum() / delta)

    assert objective(theta) == pytest.approx(value)
    for start in (theta, theta * 1.02):
        other = minimize(objective, start, method="Nelder-Mead", options={"maxiter": 4000})
        assert other.fun >= value * (1 - 1e-9)
    assert agreeing > 0.75


def test_least_absolute_deviation_meets_as_many_runs_as_it_has_numbers() -> None:
    runs, _ = runs_of(2, 0.01)
    theta, value, _ = best_law(runs, "lad")
    residuals = np.abs(log_loss(theta[None], runs.model, runs.data)[0][0] - runs.loss)
    assert int((residuals < 1e-9).sum()) >= 5
    assert residuals.sum() == pytest.approx(value)
    rng = np.random.default_rng(0)
    for size in (1e-5, 1e-4, 1e-3, 1e-2):
        near = theta + size * rng.standard_normal((200, 5))
        others = np.abs(log_loss(near, runs.model, runs.data)[0] - runs.loss).sum(-1)
        assert others.min() >= value


def test_an_outlier_moves_the_law_by_little() -> None:
    points, _ = points_of(sweep(), "the test")
    spoilt = points.losses.copy()
    spoilt[5] *= 1.5
    thetas = [
        best_law(Runs.of(points.parameters, points.tokens, losses), "huber")[0]
        for losses in (points.losses, spoilt)
    ]
    floors = np.exp([theta[2] for theta in thetas])
    assert floors[1] == pytest.approx(floors[0], rel=0.02)


def test_clusters_are_resampled_whole() -> None:
    weights = cluster_weights(np.array([0, 1, 1, 2, 0]), 50, 0)
    assert np.all(weights[:, 0] == weights[:, 4])
    assert np.all(weights[:, 1] == weights[:, 2])
    assert np.all(weights[:, [0, 1, 3]].sum(1) == 3)


def test_a_resample_is_the_fit_of_its_runs() -> None:
    """Runs counted twice or not at all, once by weight and once by standing so in the arrays."""
    runs, (parameters, tokens, losses, clusters) = runs_of()
    weights = cluster_weights(clusters, 1, 7)
    (by_weight,), _ = minimise(runs, best_law(runs, "huber")[0][None], "huber", weights)
    again = np.repeat(np.arange(len(losses)), weights[0].astype(int))
    copied = Runs.of(parameters[again], tokens[again], losses[again])
    by_copies = copied.centred(best_law(copied, "huber")[0], -1)
    np.testing.assert_allclose(runs.centred(by_weight, -1), by_copies, rtol=1e-4)


def test_the_truth_is_inside_the_intervals_of_a_sweep() -> None:
    _, arrays = runs_of(1)
    fit = fit_parametric(*arrays, "huber", 300)
    for name, draws in numbers(fit.draws).items():
        low, high = np.quantile(draws, (0.025, 0.975))
        assert low <= WANTED[name] <= high
    assert fit.floor[0] < TRUTH["E"] < fit.floor[1]
    assert fit.floor[0] > 0


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["huber", "lad"])
def test_the_truth_is_inside_the_intervals_in_nine_of_ten_sweeps(loss: Loss) -> None:
    inside = dict.fromkeys([*WANTED, "profile"], 0)
    for seed in range(40):
        _, arrays = runs_of(seed)
        fit = fit_parametric(*arrays, loss, 200)
        inside["profile"] += fit.floor[0] <= TRUTH["E"] <= fit.floor[1]
        for name, draws in numbers(fit.draws).items():
            low, high = np.quantile(draws, (0.025, 0.975))
            inside[name] += low <= WANTED[name] <= high
    assert min(inside.values()) >= 36, inside
