"""A step of a small transformer, compiled for four chips that are not there."""

import json
from pathlib import Path

import pytest

from sora_jax.cli import compile as command
from sora_jax.cli.main import run

pytest.importorskip("libtpu")
GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "pod_dit_30m.json"
ARGUMENTS = (
    "--experiment=dit_30m:p1080",
    "--topology=v5p:2x2x1",
    "--shape_class=2x2048",
    "--set=dit.depth=3",
    "--set=text.depth=1",
)


def compiled(*arguments: str) -> None:
    with pytest.raises(SystemExit) as stop:
        run(command, arguments)
    assert stop.value.code == 0


def test_a_step_is_compiled_and_its_collectives_are_as_they_were(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], update_golden: bool
) -> None:
    if update_golden:
        GOLDEN.unlink(missing_ok=True)
    output = tmp_path / "report.json"
    compiled(*ARGUMENTS, f"--output={output}", f"--golden={GOLDEN}")
    assert "bound by" in capsys.readouterr().out
    report = json.loads(output.read_text())
    assert (report["topology"], report["slices"], report["chips"]) == ("v5p:2x2x1", 1, 4)
    [found] = report["classes"]
    assert (found["rows"], found["tokens"], found["fits"]) == (2, 2048, True)
    # 12 bytes a parameter of moments and average, beside the parameters' own 4.
    state = found["state_bytes"]
    assert state["ema"] == state["parameters"]
    assert state["optimizer"] == pytest.approx(2 * state["parameters"], rel=1e-3)
    assert 0 < found["step_seconds"]["low"] <= found["step_seconds"]["high"]
    assert 0 < found["mfu"]["low"] < 1
    assert found["hardware_flops_per_chip"] > found["model_flops_per_chip"]
    assert any("context" in axes for axes in found["collective_seconds"])


def test_between_slices_only_gradients_move(tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    compiled(
        "--experiment=dit_30m:p720_on_2_slices",
        "--topology=v5p:2x2x1",
        "--slices=2",
        "--shape_class=8x1024",
        "--set=dit.depth=3",
        "--set=text.depth=1",
        f"--output={output}",
    )
    [found] = json.loads(output.read_text())["classes"]
    across = {kind for kind in found["collective_calls"] if "replica" in kind}
    assert across
    assert all(kind.startswith(("all-reduce", "reduce-scatter")) for kind in across)
    moved = sum(b for axes, b in found["collective_bytes"].items() if "replica" in axes)
    # Each device sums its shard of the gradients, once.
    assert moved < 1.2 * found["state_bytes"]["parameters"]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--topology=v5p:2x2x1"], "needs --experiment and --topology"),
        ([*ARGUMENTS[:1], "--topology=v9:2x2"], "there is no generation 'v9'"),
        ([*ARGUMENTS[:2], "--shape_class=many"], "write all, or rows x tokens"),
        ([*ARGUMENTS[:1], "--topology=v5p:2x2x2"], "needs 4 devices, but 8 are given"),
        (
            [*ARGUMENTS[:2], "--slices=2", "--set=mesh.context=4"],
            "replica=1 is no multiple of the 2 slices",
        ),
    ],
)
def test_what_cannot_be_compiled_is_one_sentence(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        run(command, arguments)
    assert stop.value.code == 2
    assert sentence in capsys.readouterr().err
