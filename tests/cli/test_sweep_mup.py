"""`sora sweep mup`: its words, flags and files, on numbers that no network was trained for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sora_jax.cli import sweep_mup
from sora_jax.errors import UserError
from sora_jax.scaling.width_transfer import Basins, Coordinates


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs the command with words and flags."""

    def coordinates(experiment: Any, widths: list[int], rate: float, *_: Any) -> Coordinates:
        return Coordinates(tuple(widths), {"mup": {f"out at {rate}": (1.0, 1.0, 2.0)}})

    def rates(experiment: Any, widths: list[int], rates: list[float], *_: Any) -> Basins:
        losses = {width: (1.0, 0.5, float("nan")) for width in widths}
        return Basins(tuple(widths), tuple(rates), {"mup": losses})

    monkeypatch.setattr(sweep_mup, "check_coordinates", coordinates)
    monkeypatch.setattr(sweep_mup, "check_rates", rates)
    monkeypatch.setattr(sweep_mup, "keep_on_disk", lambda: None)

    def call(*arguments: str) -> None:
        sweep_mup.FLAGS.unparse_flags()
        sweep_mup.main(sweep_mup.FLAGS(["sora sweep mup", *arguments]))

    yield call
    sweep_mup.FLAGS.unparse_flags()
    for name in sweep_mup.FLAGS:
        sweep_mup.FLAGS[name].unparse()


def test_both_checks_leave_numbers_and_a_plot(
    sweep: Callable[..., None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sweep("coordinates", "demo", f"--output={tmp_path}", "--rate=2", "--widths=128,64,512")
    sweep("rates", "demo", f"--output={tmp_path}", "--rates=1,2,4")
    found = {name: json.loads((tmp_path / f"{name}.json").read_text()) for name in CHECKS}
    assert found["coordinates"]["widths"] == [64, 128, 512]
    assert list(found["coordinates"]["slopes"]["mup"]) == ["out at 2.0"]
    assert found["rates"]["losses"]["mup"]["64"] == [1.0, 0.5, None]
    assert found["rates"]["log2_best_rate"]["mup"] == {"64": 1.0, "128": 1.0, "256": 1.0}
    assert all((tmp_path / f"{name}.png").exists() for name in CHECKS)
    said = capsys.readouterr().out
    assert "out at 2.0          mup +0.36" in said
    assert "mup: the best rate moves 0.00 octaves" in said


CHECKS = ("coordinates", "rates")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["coordinates", "demo"], "'sora sweep mup coordinates demo' is not understood: give"),
        (["shapes", "demo", "--output=x"], "'sora sweep mup shapes demo' is not understood"),
        (["rates", "demo", "--output=x", "--widths=64"], "--widths=64: give at least 2 positive"),
        (["rates", "demo", "--output=x", "--widths=64,wide"], "--widths=64,wide: give"),
        (["rates", "demo", "--output=x", "--widths=64,96.5"], "--widths=64,96.5: give"),
        (["rates", "demo", "--output=x", "--rates=1,2"], "--rates=1,2: give at least 3"),
        (["rates", "demo", "--output=x", "--rates=1,2,nan"], "--rates=1,2,nan: give"),
        (["rates", "demo", "--output=x", "--rates=0,1,2"], "--rates=0,1,2: give"),
        (["coordinates", "demo", "--output=x", "--rate=-1"], "--rate=-1.0: give at least 1 "),
        (["rates", "demo", "--output=gs://b/x"], "no path of this machine"),
        (["rates", "nowhere", "--output=x"], "there is no experiment 'nowhere'"),
    ],
)
def test_a_wrong_command_is_one_sentence(
    sweep: Callable[..., None], arguments: list[str], sentence: str
) -> None:
    with pytest.raises(UserError, match=sentence):
        sweep(*arguments)
