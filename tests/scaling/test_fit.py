"""Fits of whole sweeps: published points, predictions, and what is refused or flagged."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sora_jax.errors import UserError
from sora_jax.scaling.fit import Fit, fit_sweep, to_plain, write_fit
from sora_jax.scaling.foreign import read_csv
from sora_jax.scaling.plots import write_page
from sora_jax.scaling.points import points_of
from sora_jax.scaling.predict import best_size as best_size_of
from sora_jax.scaling.predict import predict, read_fit
from sora_jax.scaling.records import RunRecord
from tests.scaling.laws import EXPONENT, TRUTH, best_size, loss_at, sweep

# 121 runs of Porian et al. 2024 (arXiv:2406.19146), MIT licence; beside the checkout where at hand.
PUBLISHED = Path(__file__).resolve().parents[2].parent / "shared" / "data" / "porian_isoflop.csv"
FEW = 100  # resamples


@pytest.fixture(scope="module")
def fit() -> Fit:
    return fit_sweep(sweep(), "the test", FEW)


@pytest.mark.skipif(not PUBLISHED.exists(), reason="the published points are not at hand")
def test_published_runs_give_their_exponent_and_an_unphysical_law_is_flagged() -> None:
    found = to_plain(fit_sweep(read_csv(PUBLISHED), "the set", FEW))
    assert found["isoflop"]["exponent"] == pytest.approx(0.497, abs=0.01)
    low, high = found["isoflop"]["ci"]
    assert low < 0.497 < high < low + 0.03
    assert found["parametric_huber"]["E"] == pytest.approx(3.131, abs=0.002)
    assert found["parametric_huber"]["a"] == pytest.approx(0.529, abs=0.002)
    assert not found["parametric_huber"]["physical"]
    assert any("unphysical: the floor E = 3.131" in each for each in found["warnings"])
    assert found["parametric_near"]["E"] == pytest.approx(2.40, abs=0.01)
    assert found["parametric_near"]["a"] == pytest.approx(0.522, abs=0.002)
    assert found["predicts_with"] == "parametric_near"
    held_out = found["held_out"]
    assert held_out["mean_error"] < 0.02
    assert held_out["parameters_predicted"] == pytest.approx(held_out["parameters"], rel=0.15)


def test_a_file_of_a_fit_has_every_law_and_predicts(fit: Fit, tmp_path: Path) -> None:
    write_fit(tmp_path / "fit.json", fit)
    found = read_fit(tmp_path / "fit.json")
    assert found["warnings"] == []
    assert found["isoflop"]["exponent"] == pytest.approx(EXPONENT, abs=0.06)
    for name in ("parametric_huber", "parametric_lad"):
        assert set(found[name]) >= {"A", "B", "E", "alpha", "beta", "a", "intervals"}
        low, high = found[name]["intervals"]["E"]
        assert low < TRUTH["E"] < high
    flops = 1e20
    said = predict(found, flops)
    size, tokens = best_size(flops), flops / (6 * best_size(flops))
    assert said.parameters.ci_95[0] < size < said.parameters.ci_95[1]
    assert said.tokens.ci_95[0] < tokens < said.tokens.ci_95[1]
    assert said.loss.ci_95[0] < loss_at(size, tokens) < said.loss.ci_95[1]
    assert said.loss.value == pytest.approx(loss_at(size, tokens), rel=0.02)
    for each in (said.parameters, said.tokens, said.loss):
        assert each.ci_95[0] < each.ci_80[0] < each.value < each.ci_80[1] < each.ci_95[1]
    assert said.penalty is not None
    true_penalty = loss_at(0.7 * size, tokens / 0.7) / loss_at(size, tokens) - 1
    assert said.penalty.ci_95[0] < true_penalty < said.penalty.ci_95[1]
    assert said.batch_tokens is None
    assert "78.1 times the largest run" in predict(found, 1e21).warnings[0]
    assert predict(found, 1e18).warnings == ()


def test_the_largest_budget_is_predicted_from_the_others(fit: Fit) -> None:
    assert fit.held_out["budget"] == pytest.approx(1.28e19)
    assert fit.held_out["mean_error"] < 0.01
    assert fit.held_out["loss_predicted"] == pytest.approx(fit.held_out["loss"], rel=0.02)


def test_the_best_size_is_where_the_law_is_least() -> None:
    """With FLOPs a token that grow less than the parameters, as attention has them."""
    runs = [dataclasses.replace(each, tokens=each.tokens * 0.5) for each in sweep(noise=0.0)]
    runs = [
        dataclasses.replace(each, tokens=each.flops / (900 * each.parameters**0.75))
        for each in runs
    ]
    runs = [dataclasses.replace(each, loss=loss_at(each.parameters, each.tokens)) for each in runs]
    found = fit_sweep(runs, "the test", FEW)
    assert found.flops_of_token.exponents["parameters"] == pytest.approx(0.75, abs=1e-3)
    theta = found.parametric["parametric_huber"].theta[None]
    (size,) = best_size_of(theta, found.flops_of_token, 1e19)
    sizes = np.geomspace(size / 10, size * 10, 2001)
    losses = [loss_at(each, 1e19 / (900 * each**0.75)) for each in sizes]
    assert sizes[int(np.argmin(losses))] == pytest.approx(size, rel=0.02)


def test_runs_on_no_grid_of_budgets_have_a_parametric_law_alone() -> None:
    rng = np.random.default_rng(0)
    runs = []
    for number, flops in enumerate(np.geomspace(1e18, 3e21, 120)):
        parameters = round(best_size(flops) * np.exp(rng.uniform(-1.5, 1.5)))
        tokens = flops / (6 * parameters)
        loss = loss_at(parameters, tokens) * np.exp(0.004 * rng.standard_normal())
        runs.append(
            RunRecord(
                run=str(number),
                sweep="x",
                flops=flops,
                parameters=parameters,
                tokens=tokens,
                loss=loss,
            )
        )
    found = fit_sweep(runs, "the test", FEW)
    assert found.isoflop is None
    assert any("no IsoFLOP exponent" in each for each in found.warnings)
    assert any("120 runs share no budget" in each for each in found.warnings)
    values = to_plain(found)["parametric_huber"]
    assert values["intervals"]["a"][0] < EXPONENT < values["intervals"]["a"][1]
    assert found.held_out["mean_error"] < 0.01
    said = predict(to_plain(found), 1e22)
    assert said.size_by == "parametric_huber"
    assert said.parameters.ci_95[0] < best_size(1e22) < said.parameters.ci_95[1]


def test_rates_and_batches_have_joint_laws() -> None:
    """Losses with a valley in rate and batch about a power of tokens and parameters."""
    runs, wanted = [], {}
    for each in sweep(noise=0.0, budgets=6, sizes=5):
        best_rate = 0.03 * each.tokens**-0.05 * each.parameters**-0.16
        best_batch = 2e-2 * each.tokens**0.6 * each.parameters**0.2
        wanted[each.parameters] = best_rate, best_batch, each.tokens
        for rate in 2.0 ** np.arange(-2, 3):
            for batch in (0.25, 1.0, 4.0):
                off = np.log(rate * 1.2) ** 2 + 0.3 * np.log(batch * 1.1) ** 2
                runs.append(
                    dataclasses.replace(
                        each,
                        run=f"{each.run}-{rate}-{batch}",
                        cluster="",
                        peak_rate=best_rate * rate * 1.2,
                        batch_tokens=best_batch * batch * 1.1,
                        loss=(each.loss or 0) * (1 + 0.01 * off),
                        metrics={"fvd": 4e4 * each.flops**-0.1, "drop": -1.0},
                    )
                )
    found = fit_sweep(runs, "the test", FEW)
    law, source = found.settings["rate"]
    assert source == "minima of 30 basins"
    assert law.exponents == pytest.approx({"tokens": -0.05, "parameters": -0.16}, abs=1e-3)
    assert found.settings["batch"][0].exponents == pytest.approx(
        {"tokens": 0.6, "parameters": 0.2}, abs=1e-3
    )
    assert any("420 runs of worse batches or rates" in each for each in found.warnings)
    said = predict(to_plain(found), 1e20)
    assert said.peak_rate is not None
    size, tokens = said.parameters.value, said.tokens.value
    assert said.peak_rate.value == pytest.approx(0.03 * tokens**-0.05 * size**-0.16, rel=0.01)
    assert found.metrics["fvd"].exponents["flops"] == pytest.approx(-0.1)
    assert any("no law of drop" in each for each in found.warnings)


def test_rates_that_were_only_used_are_told_apart_from_the_best() -> None:
    runs = [
        dataclasses.replace(each, peak_rate=1e-3 * (each.parameters / 1e7) ** -0.5)
        for each in sweep()
    ]
    said = predict(to_plain(fit_sweep(runs, "the test", FEW)), 1e20)
    assert said.peak_rate is not None
    assert said.peak_rate.value == pytest.approx(1e-3 * (said.parameters.value / 1e7) ** -0.5)
    assert any("not shown to be best" in each for each in said.warnings)


def test_plots_and_a_page_are_written(fit: Fit, tmp_path: Path) -> None:
    page = write_page(tmp_path / "plots", fit, "<the test>")
    names = {each.name for each in page.parent.iterdir()}
    assert names == {
        "index.html", "isoflop_curves.png", "best_parameters.png", "best_tokens.png", "loss.png",
        "residuals.png",
    }  # fmt: skip
    text = page.read_text()
    assert text.count("data:image/png;base64,") == 5
    assert "&lt;the test&gt;" in text


def changed(which: slice, **fields: Any) -> list[RunRecord]:
    runs = sweep()
    there = {id(each) for each in runs[which]}
    return [dataclasses.replace(each, **fields) if id(each) in there else each for each in runs]


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        (sweep(budgets=1), "the test: all runs are of one budget"),
        (changed(slice(None), budget=1e18), "all runs are of one budget"),
        (changed(slice(None), parameters=1000), "all runs are of one size, 1000 parameters"),
        (changed(slice(3), parametrisation="mup"), "several parametrisations, mup and unnamed"),
        (changed(slice(None), status="failed", loss=None), "no run is done"),
        (sweep(budgets=2, sizes=3), "no law can be fitted: .*no IsoFLOP exponent"),
    ],
)
def test_what_gives_no_law_is_refused(runs: list[RunRecord], message: str) -> None:
    with pytest.raises(UserError, match=message):
        fit_sweep(runs, "the test", FEW)


def test_what_spoils_a_law_is_told() -> None:
    _, told = points_of(changed(slice(2), status="diverged", loss=None), "the test")
    assert told == ["2 runs diverged and are left out"]
    _, told = points_of(changed(slice(1), budget=2e17), "the test")
    assert "spent 1e+17 FLOPs of its budget of 2e+17" in told[0]
    _, told = points_of([*changed(slice(4), data="a")[:9], *changed(slice(99), data="b")[9:]], "x")
    assert "trained on 2 sets" in told[0]
    warned = fit_sweep(changed(slice(None), cluster="one"), "the test", FEW).warnings
    assert any("1 clusters of runs: too few" in each for each in warned)
    few = fit_sweep(sweep(budgets=3), "the test", FEW)
    assert few.isoflop is not None
    assert predict(to_plain(few), 1e20).size_by == few.predicts_with
    warned = few.warnings
    assert any("3 budgets over 4 times, where an exponent needs 6" in each for each in warned)


@pytest.mark.parametrize("flops", [0.0, -1.0, float("nan"), float("inf")])
def test_only_a_positive_budget_is_predicted(fit: Fit, flops: float) -> None:
    with pytest.raises(UserError, match="is no budget"):
        predict(to_plain(fit), flops)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 2}'])
def test_another_file_is_no_fit(tmp_path: Path, text: str) -> None:
    (tmp_path / "fit.json").write_text(text)
    with pytest.raises(UserError, match=r"fit\.json"):
        read_fit(tmp_path / "fit.json")
