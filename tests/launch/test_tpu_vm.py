"""gcloud's commands for TPU VMs, and that the loop on a host does as exit codes say."""

import shlex
import subprocess
from pathlib import Path

import pytest

from launch import tpu_vm
from launch.command_line import exit_code_of
from sora_jax.pod.accelerators import ACCELERATORS
from tests.launch.runs import check_golden, launch, stand_in

IMAGE = "registry.example/clips/sora_jax:1"
PLACE = ("--zone", "us-east5-a", "--image", IMAGE, "--name", "clips")
COMMAND = ("--", "sora", "train", "--set", "data.buckets=((1, 64, 64),)")
ONE = ("--accelerator", "v5p-8", *PLACE)


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> list[list[str]]:
    """The commands that are printed, each as its words."""
    assert exit_code_of(tpu_vm.main, "launch.tpu_vm", words) == 0
    lines = capsys.readouterr().out.splitlines()
    return [shlex.split(line) for line in lines if not line.startswith("#")]


@pytest.mark.parametrize(("name", "slices"), [("v5e-16", 1), ("v5p-256", 2)])
def test_commands_stay_as_they_were(
    name: str, slices: int, update_golden: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = ("--spot",) if slices > 1 else ("--reserved", "--project", "video")
    words = ("--accelerator", name, "--slices", str(slices), *PLACE, *kind, *COMMAND)
    assert exit_code_of(tpu_vm.main, "launch.tpu_vm", words) == 0
    check_golden(capsys.readouterr().out, f"tpu_vm_{name}_{slices}.txt", update_golden)


@pytest.mark.parametrize("name", [name for name in ACCELERATORS if not name.startswith("tpu7x")])
def test_every_accelerator_is_asked_for_by_the_api_name(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--accelerator", name, *PLACE, "--step", "create", *COMMAND)
    [create] = printed(capsys, *words)
    assert f"--accelerator-type={name.replace('v5e', 'v5litepod')}" in create
    assert any(word.startswith("--runtime-version=v2-alpha-tpuv") for word in create)


@pytest.mark.parametrize(
    ("codes", "runs"),
    [
        ([0], 1),
        ([1], 1),
        ([2], 1),
        ([42, 0], 2),
        ([143, 42, 1], 3),
        ([127], 1),
        ([137] * 9, 4),  # three restarts are allowed
    ],
)
def test_a_host_starts_again_as_exit_codes_say(
    codes: list[int], runs: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [start] = printed(capsys, *ONE, "--restarts", "3", "--step", "start", *COMMAND)
    script = start[-1].removeprefix("--command=").replace("sleep 10", "sleep 0")
    path = stand_in(tmp_path, "docker")
    (tmp_path / "codes").write_text("\n".join(map(str, codes)) + "\n")
    (tmp_path / "docker").write_text(
        "#!/bin/sh\n"
        f'echo "$@" >> {tmp_path}/words\n'
        f"code=$(head -n 1 {tmp_path}/codes)\n"
        f"sed -i 1d {tmp_path}/codes\n"
        "exit $code\n"
    )
    subprocess.run(
        ["bash", "-c", f"{script} wait"], cwd=tmp_path, env={"PATH": path}, check=True, timeout=60
    )
    assert len((tmp_path / "words").read_text().splitlines()) == runs
    assert (
        f"attempt {runs - 1} ended with exit code {codes[runs - 1]}"
        in (tmp_path / "clips.log").read_text()
    )


def test_a_stopped_run_is_not_started_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [start] = printed(capsys, *ONE, "--step", "start", *COMMAND)
    [stop] = printed(capsys, *ONE, "--step", "stop", *COMMAND)
    scripts = [each[-1].removeprefix("--command=") for each in (start, stop)]
    path = stand_in(tmp_path, "docker", code=42)
    # `run` ends as soon as `stop` was called.
    (tmp_path / "docker").write_text(
        f'#!/bin/sh\necho "$1" >> {tmp_path}/words\n[ "$1" = stop ] && touch {tmp_path}/stopped\n'
        f"while [ ! -e {tmp_path}/stopped ]; do sleep 0.05; done\nexit 42\n"
    )
    subprocess.run(
        ["bash", "-c", f"{scripts[0]} {scripts[1]}; wait"],
        cwd=tmp_path,
        env={"PATH": path},
        check=True,
        timeout=60,
    )
    assert sorted((tmp_path / "words").read_text().split()) == ["run", "stop"]


def test_nothing_runs_unless_asked_to(tmp_path: Path) -> None:
    path = stand_in(tmp_path, "gcloud")
    dry = launch("tpu_vm", *ONE, *COMMAND, PATH=path)
    assert (dry.returncode, dry.stderr) == (0, "")
    assert not (tmp_path / "words").exists()
    words = ("--slices", "2", *ONE, "--step", "install", "--nodry_run", *COMMAND)
    wet = launch("tpu_vm", *words, PATH=path)
    assert (wet.returncode, wet.stdout, wet.stderr) == (0, "", "")
    said = (tmp_path / "words").read_text().splitlines()
    assert sorted(word for word in said if word.startswith("clips")) == ["clips-0", "clips-1"]


def test_what_gcloud_fails_at_is_said(tmp_path: Path) -> None:
    words = (*ONE, "--step", "delete", "--nodry_run", *COMMAND)
    failed = launch("tpu_vm", *words, PATH=stand_in(tmp_path, "gcloud", code=3))
    sentence = "launch.tpu_vm: gcloud compute tpus queued-resources delete clips ended with exit"
    assert (failed.returncode, failed.stderr) == (1, f"{sentence} code 3\n")
    missing = launch("tpu_vm", *words, PATH="/nowhere")
    assert missing.returncode == 1
    assert missing.stderr == "launch.tpu_vm: there is no gcloud on the PATH to run this with\n"


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((*ONE, "--slices", "0", *COMMAND), "--slices 0: a run has at least one slice"),
        (("--accelerator", "v6e-9", *PLACE, *COMMAND), "did you mean 'v6e-8'?"),
        (
            ("--accelerator", "tpu7x-8", *PLACE, *COMMAND),
            "tpu7x-8 is not offered as TPU VMs, only on GKE: use python -m launch.gke",
        ),
        ((*ONE, "--name", "A", *COMMAND), "--name A: it has lower-case letters"),
        ((*ONE, "--image", "sora", *COMMAND), "--image sora has no tag"),
        ((*ONE, "--spot", "--reserved", *COMMAND), "not allowed with argument --spot"),
        ((*ONE, "--nodry_run", *COMMAND), "--nodry_run runs one step: give --step, of create, "),
        ((*ONE, "--step", "run", *COMMAND), "argument --step: invalid choice: 'run'"),
        (ONE, "there is nothing to run"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(tpu_vm.main, "launch.tpu_vm", words) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert sentence in said.err
    assert said.err.count("\n") == 1
