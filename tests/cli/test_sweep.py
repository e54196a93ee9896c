"""`sora sweep`: from a table of points to a file of laws and a prediction, and what is refused."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from sora_jax.cli import sweep, sweep_fit, sweep_predict
from sora_jax.config import load_experiment
from sora_jax.errors import UserError
from sora_jax.scaling.records import write_jsonl
from sora_jax.work import training_flops
from tests.scaling.laws import sweep as runs_of


def call(module: object, *arguments: str) -> None:
    flags = module.FLAGS  # type: ignore[attr-defined]
    flags.unparse_flags()
    for name in flags:
        flags[name].unparse()
    module.main(flags(["sora sweep", *arguments]))  # type: ignore[attr-defined]


def test_records_are_fitted_and_a_budget_predicted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "records.jsonl", runs_of())
    fit, said = tmp_path / "fit.json", tmp_path / "said.json"
    call(sweep_fit, f"--input={tmp_path}", f"--output={fit}", "--resamples=100")
    assert "parametric_lad" in capsys.readouterr().out
    assert (tmp_path / "fit" / "index.html").exists()
    laws = json.loads(fit.read_text())
    assert {"exponent", "ci"} <= set(laws["isoflop"])
    call(sweep_predict, f"--fit={fit}", "--flops=1e21", f"--output={said}")
    assert "loss of 0.7 of the size" in capsys.readouterr().out
    assert json.loads(said.read_text())["flops"] == 1e21


def test_a_predicted_run_is_written_as_an_experiment(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_jsonl(tmp_path / "records.jsonl", runs_of())
    fit, path = tmp_path / "fit.json", tmp_path / "best.py"
    call(sweep_fit, f"--input={tmp_path}", f"--output={fit}", "--resamples=100")
    asked = [f"--fit={fit}", "--flops=1e13", "--experiment=sweep", f"--to_experiment={path}"]
    with pytest.raises(UserError, match="needs --slice"):
        call(sweep_predict, *asked)
    call(sweep_predict, *asked, "--slice=cpu-2", "--depth=2", "--rule=mup")
    made = load_experiment(str(path))
    assert made.dit.depth == 2
    assert made.dit.base_width == load_experiment("sweep").dit.width
    steps = made.dit_stage.training.steps
    assert training_flops(made, steps) == pytest.approx(1e13, rel=0.01)
    assert f"{steps:,}" in capsys.readouterr().out


@pytest.mark.parametrize("text", ["", "flops,params,tokens,loss\n1e18,1e7,1e10,nan\n"])
def test_a_bad_table_leaves_no_file(tmp_path: Path, text: str) -> None:
    source, output = tmp_path / "points.csv", tmp_path / "fit.json"
    source.write_text(text)
    with pytest.raises(UserError, match=r"points\.csv"):
        call(sweep_fit, f"--input={source}", f"--output={output}")
    assert [each.name for each in tmp_path.iterdir()] == ["points.csv"]


def test_flags_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--input and --output"):
        call(sweep_fit)
    with pytest.raises(UserError, match="end it in that"):
        call(sweep_fit, "--input=a.csv", "--output=fit.txt")
    with pytest.raises(UserError, match="--fit and --flops"):
        call(sweep_predict, "--flops=1e22")


def test_another_verb_suggests_the_nearest() -> None:
    with pytest.raises(UserError, match="did you mean 'fit'"):
        call(sweep, "fitt")


def test_a_verb_is_a_command_with_flags_of_its_own() -> None:
    run = [sys.executable, "-m", "sora_jax.cli.sweep", "predict"]
    helped = subprocess.run([*run, "--help"], capture_output=True, text=True, check=True)
    assert helped.stdout.startswith("sora sweep predict: say what to train")
    assert "--resamples" not in helped.stdout
    missing = [*run, "--fit=none.json", "--flops=1e22"]
    refused = subprocess.run(missing, capture_output=True, text=True, check=False)
    assert refused.returncode == 1
    assert refused.stderr.startswith("sora sweep predict: cannot read none.json")
