"""A step of a small transformer, compiled for four chips that are not there."""

import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.one_process import Said, in_one_process

pytest.importorskip("libtpu")
FOLDER = Path(__file__).resolve().parent.parent / "golden"
ARGUMENTS = (
    "--experiment=dit_30m:p1080",
    "--topology=v5p:2x2x1",
    "--shape_class=2x2048",
    "--set=dit.depth=3",
    "--set=text.depth=1",
)


def sora_compile(*arguments: str) -> subprocess.CompletedProcess[str]:
    """In a process of its own: libtpu and its settings are loaded once."""
    command = [sys.executable, "-m", "sora_jax.cli.compile", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def golden_of(name: str, update: bool) -> list[str]:
    """The argument that compares with a golden file, if it was written with this libtpu."""
    path = FOLDER / name
    if update:
        path.unlink(missing_ok=True)
    assert update or path.exists()
    kept = json.loads(path.read_text())["libtpu"] if path.exists() else None
    return [f"--golden={path}"] if kept in (None, importlib.metadata.version("libtpu")) else []


def test_a_step_is_compiled_and_its_collectives_are_as_they_were(
    tmp_path: Path, update_golden: bool
) -> None:
    output = tmp_path / "report.json"
    golden = golden_of("pod_dit_30m.json", update_golden)
    done = sora_compile(*ARGUMENTS, f"--output={output}", *golden)
    assert done.returncode == 0, done.stderr
    assert "bound by" in done.stdout
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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "shape_class", "micro_batches"),
    [("1", "8x1024", 1), ("2", "8x1024", 2), ("parts", "16x1024x2", 1)],
)
def test_between_slices_only_gradients_move(
    tmp_path: Path, update_golden: bool, name: str, shape_class: str, micro_batches: int
) -> None:
    """Once a step, of however many micro-batches or parts."""
    output = tmp_path / "report.json"
    done = sora_compile(
        "--experiment=dit_30m:p720_on_2_slices",
        "--topology=v5p:2x2x1",
        "--slices=2",
        f"--shape_class={shape_class}",
        "--set=dit.depth=3",
        "--set=text.depth=1",
        "--set=text.width=512",  # narrower shards of its table are padded to 128 lanes
        f"--set=dit_stage.training.micro_batches={micro_batches}",
        f"--output={output}",
        *golden_of(f"pod_dit_30m_2_slices_{name}.json", update_golden),
    )
    assert done.returncode == 0, done.stderr
    [found] = json.loads(output.read_text())["classes"]
    across = {kind: use for kind, use in found["collectives"].items() if "replica" in kind}
    sums = [use["bytes"] for kind, use in across.items() if kind.startswith("all-reduce")]
    others = [use["bytes"] for kind, use in across.items() if not kind.startswith("all-reduce")]
    # Each device sums its shard of the gradients, once, in bfloat16 where it is not accumulated.
    assert 0.5 * found["state_bytes"]["parameters"] < sum(sums)
    assert sum(sums) < 1.1 * found["state_bytes"]["parameters"]
    assert sum(others) < 0.05 * sum(sums)


SAMPLING = (
    "--experiment=dit_30m:p1080",
    "--topology=v5e:2x2",
    "--clip=17x64x128",
    "--set=mesh.fsdp=1",
    "--set=mesh.context=4",
    "--set=sampling.rows=1",
    "--set=sampling.chunk=2",
)


def test_sampling_is_all_steps_of_a_clip_whose_tokens_are_split(tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    done = sora_compile(
        *SAMPLING,
        "--what=sample",
        "--set=dit.depth=1",
        "--set=dit.attention.context=ring",
        "--set=text.depth=1",
        "--set=sampling.steps=3",
        f"--output={output}",
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(output.read_text())
    assert report["what"] == "sample"
    [found] = report["classes"]
    assert found["name"] == "dit_30m_p1080 sample 17x64x128"
    assert (found["rows"], found["tokens"], found["runs"], found["fits"]) == (1, 160, 1, True)
    assert found["model_flops_per_chip"] == found["hardware_flops_per_chip"] > 0
    # Keys and values go to three neighbours, with a caption and without at once, in every one of
    # three steps of the one block.
    assert found["collectives"]["collective-permute over context"]["calls"] >= 3 * 3 * 2
    moved = [use["bytes"] / use["calls"] for use in found["collectives"].values()]
    assert max(moved) < found["state_bytes"]["parameters"]


def test_decoding_sends_the_edges_of_pictures_and_nothing_else(tmp_path: Path) -> None:
    output = tmp_path / "report.json"
    done = sora_compile(
        *SAMPLING,
        "--what=vae_decode",
        "--set=vae.widths=(64,)",
        "--set=vae.folds=((4,8),)",
        "--set=vae.blocks=1",
        f"--output={output}",
    )
    assert done.returncode == 0, done.stderr
    assert "3 of these" in done.stdout  # chunks of one latent frame, two and two
    [found] = json.loads(output.read_text())["classes"]
    assert (found["tokens"], found["runs"], found["fits"]) == (2 * 4 * 8, 3, True)
    assert {kind.partition(" ")[0] for kind in found["collectives"]} == {"collective-permute"}
    assert 0 < found["state_bytes"]["state"] < found["state_bytes"]["parameters"]


MISTAKES: list[tuple[list[str], str]] = [
    (["--topology=v5p:2x2x1"], "needs --experiment and --topology"),
    ([*ARGUMENTS[:1], "--topology=v9:2x2"], "there is no generation 'v9'"),
    ([*ARGUMENTS[:2], "--shape_class=many"], "write all, or rows x tokens"),
    ([*ARGUMENTS[:2], "--shape_class=4x2048x2", "--search"], "--search divides the rows"),
    ([*ARGUMENTS[:3], "--search", "--executables=."], "--search is for the step on one class"),
    ([*ARGUMENTS[:2], "--output=no/such.json"], "there is no such directory"),
    ([*ARGUMENTS[:2], "--clip=17x64x64"], "--clip is for sampling"),
    ([*ARGUMENTS[:3], "--what=sample"], "--shape_class is for training"),
    ([*ARGUMENTS[:2], "--what=sample", "--clip=17x64"], "write frames x height x width"),
    (
        [*ARGUMENTS[:2], "--what=vae_encode", "--clip=1440x1080x1920"],
        "1437 or 1441 frames and a height of 1072 or 1088 would work",
    ),
    ([*ARGUMENTS[:1], "--topology=v5p:2x2x2"], "needs 4 devices, but 8 are given"),
    (
        [*ARGUMENTS[:2], "--slices=2", "--set=mesh.fsdp=-1"],
        "replica=1 is no multiple of the 2 slices",
    ),
]


@pytest.fixture(scope="module")
def mistakes() -> dict[str, Said]:
    """What each of them says, by its sentence."""
    calls = [("sora_jax.cli.compile", arguments) for arguments, _ in MISTAKES]
    sentences = [sentence for _, sentence in MISTAKES]
    return dict(zip(sentences, in_one_process(calls), strict=True))


@pytest.mark.parametrize("sentence", [sentence for _, sentence in MISTAKES])
def test_what_cannot_be_compiled_is_one_sentence(mistakes: dict[str, Said], sentence: str) -> None:
    assert mistakes[sentence].code == 1
    assert sentence in mistakes[sentence].errors
