"""A real sweep, trained as a whole: loss falls with compute, and the largest budget is foretold."""

from pathlib import Path

import pytest

from benchmarks import small_sweep


@pytest.mark.slow
def test_the_largest_budget_is_predicted_from_the_others(tmp_path: Path) -> None:
    fit = small_sweep.trained(tmp_path)
    runs = small_sweep.records(tmp_path)
    assert [run["status"] for run in runs] == ["done"] * 30
    assert all(abs(run["flops"] / run["budget"] - 1) < 0.01 for run in runs)
    best = small_sweep.best_losses(runs)
    assert len(best) == 6
    assert best == sorted(best, reverse=True)
    assert abs(fit["held_out"]["loss_predicted"] / fit["held_out"]["loss"] - 1) < 0.02
