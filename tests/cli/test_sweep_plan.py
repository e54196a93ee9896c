"""`sora sweep plan`: what it prints and writes, and a sentence for what it refuses."""

import json
from pathlib import Path

import pytest

from sora_jax.cli import sweep_plan
from sora_jax.cli.data import build_world_set
from sora_jax.cli.sweep_plan import parsed_budgets
from sora_jax.config import ConfigError, load_experiment
from sora_jax.scaling.plan import PLAN_FILE, load_plan

SMALL = {
    "experiment": "sweep",
    "budgets": "2e11,4e11",
    "optimum": "0.25,0.5",
    "sizes": "3",
    "slice": "cpu-2",
    "aspect": "32",
}


def plan(*arguments: str, **values: str) -> None:
    """The command with SMALL, other values of flags, and switches."""
    given = [f"--{name}={value}" for name, value in {**SMALL, **values}.items() if value]
    try:
        sweep_plan.main(sweep_plan.FLAGS(["sora sweep plan", *given, *arguments]))
    finally:
        sweep_plan.FLAGS.unparse_flags()
        for name in sweep_plan.FLAGS:
            sweep_plan.FLAGS[name].unparse()


def test_a_dry_run_prints_and_writes_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan("--few", "--dry_run", output=str(tmp_path))
    printed = capsys.readouterr().out
    assert "width x depth" in printed
    assert "6 runs, 1.8" in printed
    assert "assuming 12% of the peak of cpu-2" in printed
    assert not list(tmp_path.iterdir())


def test_a_plan_is_written_and_grows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = load_experiment("sweep")
    build_world_set(20, tmp_path / "set", base.data, base.world)
    asked = {"data": str(tmp_path / "set"), "output": str(tmp_path / "sweep")}
    plan("--few", **asked)
    path = tmp_path / "sweep" / PLAN_FILE
    first = load_plan(path)
    assert len(first) == 6
    plan("--few", **asked, budgets="8e11")
    assert [run.run for run in load_plan(path)[:6]] == [run.run for run in first]
    assert "9 runs, 3 of them new" in capsys.readouterr().out
    assert all(run["data"] for run in json.loads(path.read_text())["runs"])


def test_hours_are_held(capsys: pytest.CaptureFixture[str]) -> None:
    plan("--few", "--dry_run", budget_hours="0.01")
    printed = capsys.readouterr().out
    assert "left out: 3 runs of 4e+11 FLOPs" in printed
    assert "3 runs, 6" in printed
    with pytest.raises(ConfigError, match="hold not even the smallest budget"):
        plan("--few", "--dry_run", budget_hours="1e-6")
    with pytest.raises(ConfigError, match="1 budgets over 1x tell no exponent"):
        plan("--dry_run", budget_hours="0.01")


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        ({"experiment": ""}, "needs --experiment, --budgets and --slice"),
        ({"optimum": "1"}, "--optimum 1: write a,b"),
        ({"budgets": "1e12,-1"}, "--budgets 1e12,-1: write positive FLOPs"),
        ({"slice": "v5p-7"}, "there is no accelerator 'v5p-7'"),
        ({"span": "1"}, "a span of 1.0 above 1"),
        ({"head_width": "3"}, "head_width=3 must be even"),
    ],
)
def test_what_cannot_be_planned_is_one_sentence(values: dict[str, str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        plan("--dry_run", **values)


def test_a_plan_needs_data_and_a_directory(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="needs --output and --data, or --dry_run"):
        plan(output=str(tmp_path))
    with pytest.raises(ConfigError, match="takes flags alone, not 'more'"):
        plan("more")


def test_budgets() -> None:
    assert parsed_budgets("1e18,4e18") == [1e18, 4e18]
    assert parsed_budgets("1e18:3.2e19:6") == [1e18 * 2**k for k in range(6)]
    for text in ("", "1e18:2e18", "nan", "inf", "1e18:2e18:0", "a,b"):
        with pytest.raises(ConfigError, match="write positive FLOPs"):
            parsed_budgets(text)
