"""IsoFLOP profiles: the exponent inside its interval, and budgets without a minimum named."""

import dataclasses
import warnings

import numpy as np
import pytest

from sora_jax.scaling.envelope import fit_envelope
from sora_jax.scaling.isoflop import fit_isoflop, valley_of
from sora_jax.scaling.points import Points, group_budgets, points_of
from sora_jax.scaling.records import RunRecord
from tests.scaling.laws import EXPONENT, best_size, sweep


def points(runs: list[RunRecord]) -> Points:
    return points_of(runs, "the test")[0]


@pytest.mark.parametrize("noise", [0.003, 0.01])
def test_the_exponent_is_inside_its_interval_in_nine_of_ten_sweeps(noise: float) -> None:
    inside = 0
    for seed in range(40):
        found, _ = fit_isoflop(points(sweep(seed, noise)), np.random.default_rng(seed), 400)
        assert found is not None
        low, high = found.parameters.interval("flops")
        inside += low <= EXPONENT <= high
    assert inside >= 36


def test_without_noise_sizes_tokens_and_loss_come_out() -> None:
    found, valleys = fit_isoflop(points(sweep(noise=0.0)), np.random.default_rng(0), 200)
    assert found is not None
    assert found.parameters.exponents["flops"] == pytest.approx(EXPONENT, abs=2e-3)
    assert found.tokens.exponents["flops"] == pytest.approx(1 - EXPONENT, abs=2e-3)
    for each in valleys:
        assert each.parameters == pytest.approx(best_size(each.budget), rel=0.05)
        assert each.parameters * each.tokens * 6 == pytest.approx(each.budget, rel=1e-6)


def test_branches_of_one_run_widen_the_interval() -> None:
    """Noise that a size has at all budgets, more and more of it, turns the line: minima scatter
    little about it, and only signs drawn for all runs of a cluster see how unsure its slope is."""
    shared = np.random.default_rng(1).standard_normal(8)
    runs = [
        dataclasses.replace(each, cluster=str(place % 8), loss=(each.loss or 0) * (1 + moved))
        for place, each in enumerate(sweep(noise=0.0))
        for moved in [0.01 * shared[place % 8] * (place // 8 - 3.5) / 3.5]
    ]
    alone = [dataclasses.replace(each, cluster=each.run) for each in runs]
    widths = []
    for these in (alone, runs):
        found, _ = fit_isoflop(points(these), np.random.default_rng(0), 1000)
        assert found is not None
        low, high = found.parameters.interval("flops")
        widths.append(high - low)
    assert found.parameters.interval_from == "noise of runs"
    assert widths[1] > 1.2 * widths[0]


def kept_sizes(kept: slice) -> Points:
    """The first budget's runs but for some sizes; the others whole."""
    runs = [dataclasses.replace(each, budget=each.flops) for each in sweep(noise=0.0)]
    return points(sorted(runs[:8], key=lambda each: each.parameters)[kept] + runs[8:])


@pytest.mark.parametrize(("kept", "end"), [(slice(4), "largest"), (slice(4, None), "smallest")])
def test_a_budget_that_is_not_bracketed_asks_for_a_size(kept: slice, end: str) -> None:
    some = kept_sizes(kept)
    valley = valley_of(some, some.distinct_budgets[0])
    assert valley.problem is not None
    assert f"not bracketed, its {end} size" in valley.problem
    wanted = float(valley.problem.split("about ")[1].split()[0])
    best = best_size(1e17)
    assert (wanted > best) if end == "largest" else (wanted < best)
    assert 0.25 * best < wanted < 4 * best
    found, _ = fit_isoflop(some, np.random.default_rng(0), 200)
    assert found is not None  # of the seven others
    assert found.parameters.exponents["flops"] == pytest.approx(EXPONENT, abs=5e-3)


def test_too_few_sizes_and_a_dent_are_no_minimum() -> None:
    few = kept_sizes(slice(2, 5))
    assert "3 sizes" in str(valley_of(few, few.distinct_budgets[0]).problem)
    runs = sweep(noise=0.0, sizes=7)
    losses = [2.5, 2.46, 2.7, 2.45, 2.7, 2.46, 2.5]
    dent = [dataclasses.replace(a, loss=b) for a, b in zip(runs[:7], losses, strict=True)]
    some = points(dent + runs[7:])
    assert "not convex" in str(valley_of(some, some.distinct_budgets[0]).problem)


def test_two_budgets_give_no_exponent() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found, valleys = fit_isoflop(points(sweep(budgets=2)), np.random.default_rng(0), 200)
    assert found is None
    assert len(valleys) == 2


def test_runs_of_about_the_same_flops_share_a_budget() -> None:
    rng = np.random.default_rng(0)
    runs = sweep()
    flops = np.sort(np.array([each.flops for each in runs]) * np.exp(rng.uniform(-0.03, 0.03, 64)))
    sizes = rng.permutation(64).astype(float)
    groups = group_budgets(flops, sizes)
    assert len(np.unique(groups)) == 8
    assert np.all(np.abs(groups / flops - 1) < 0.07)
    # Runs between budgets have none, and take none from the others.
    between = np.sort(np.r_[flops, 1.4e17, 5.6e17])
    found = group_budgets(between, np.arange(66.0))
    assert int(np.isnan(found).sum()) == 2


@pytest.mark.parametrize("number", [60, 240])
def test_runs_at_any_flops_share_no_budget(number: int) -> None:
    """Spread evenly over three decades none do; and of those drawn at random few."""
    even = group_budgets(np.geomspace(1e18, 1e21, number), np.arange(float(number)))
    assert np.isnan(even).all()
    drawn = np.sort(1e18 * 10 ** (3 * np.random.default_rng(0).random(number)))
    assert np.isnan(group_budgets(drawn, np.arange(float(number)))).mean() > 0.85


def test_the_envelope_follows_the_best_sizes() -> None:
    found = fit_envelope(points(sweep(sizes=15)), 400)
    assert found is not None
    assert len(found.runs) == 8
    low, high = found.parameters.interval("flops")
    assert low <= EXPONENT <= high
    assert high - low < 0.5
