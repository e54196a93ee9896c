"""Manifests for GKE: what the schema and JobSet's webhook ask, and mistakes in one sentence."""

from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from launch import gke, names, schema
from launch.command_line import exit_code_of
from launch.flags import libtpu_init_args
from launch.gke import written
from launch.jobset import GRACE_SECONDS, PORTS, Run, jobset, restartable_codes
from launch.machines import machine_type
from sora_jax.errors import DONE, FAILED, RESTARTABLE, ConfigError, RestartableError, UserError
from sora_jax.pod.accelerators import accelerator
from tests.launch.runs import SCHEMA, check_golden, launch, stand_in

IMAGE = "registry.example/clips/sora_jax:1"
WORDS = ("--image", IMAGE, "--name", "clips", "--", "sora", "train", "--experiment", "dit_14b")
SMALLEST = ("--accelerator", "v5p-8", *WORDS)
COMBINATIONS = [
    ("v5e-1", 1),
    ("v5e-8", 1),
    ("v5e-16", 4),
    ("v5e-256", 2),
    ("v6e-8", 2),
    ("v6e-256", 1),
    ("v5p-8", 1),
    ("v5p-256", 2),
    ("v5p-12288", 1),
    ("tpu7x-2", 1),
    ("tpu7x-8", 2),
    ("tpu7x-512", 16),
]
OPTIONS = {
    "namespace": "video",
    "queue": "tpu",
    "priority": "high",
    "service_account": "trainer",
    "bucket": "clips-eu",
    "environment": {"SEED": "1e3", "LIBTPU_INIT_ARGS": "--xla_tpu_enable_megascale_barrier=true"},
}


def run_of(name: str, slices: int, **changes: Any) -> Run:
    given: dict[str, Any] = {
        "name": "clips",
        "accelerator": accelerator(name),
        "slices": slices,
        "image": IMAGE,
        "command": ("sora", "train", "--experiment", "dit_14b", "--steps", "017"),
        "restarts": 50,
        "environment": {},
    }
    return Run(**(given | changes))


@cache
def jobset_schema() -> dict[str, Any]:
    if not SCHEMA.exists():
        pytest.skip(f"needs {SCHEMA}")
    return schema.load_schema(str(SCHEMA), "v1alpha2")


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "all"])
@pytest.mark.parametrize(("name", "slices"), COMBINATIONS)
def test_a_manifest_fits_the_schema(name: str, slices: int, options: dict[str, Any]) -> None:
    run = run_of(name, slices, **options)
    manifest = yaml.safe_load(written(run, jobset(run)))
    assert schema.complaints(manifest, jobset_schema()) == []


@pytest.mark.parametrize("options", [{}, OPTIONS], ids=["plain", "all"])
@pytest.mark.parametrize(("name", "slices"), COMBINATIONS)
def test_a_manifest_is_of_the_size_asked_for(
    name: str, slices: int, options: dict[str, Any]
) -> None:
    run = run_of(name, slices, **options)
    text = written(run, jobset(run))
    assert text == written(run, jobset(run))
    manifest = yaml.safe_load(text)
    assert manifest == jobset(run)
    assert names.complaints(manifest) == []
    [slice_] = manifest["spec"]["replicatedJobs"]
    job = slice_["template"]["spec"]
    pod = job["template"]["spec"]
    [container] = pod["containers"]
    hosts = run.accelerator.hosts
    assert (slice_["replicas"], job["parallelism"], job["completions"]) == (slices, hosts, hosts)
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert chips * hosts == run.accelerator.chips
    assert machine_type(run.accelerator).endswith(f"-{chips}t")
    selector = pod["nodeSelector"]
    assert selector["cloud.google.com/gke-tpu-topology"] == run.accelerator.topology
    assert ("annotations" in manifest["metadata"]) == (hosts > 1)


@pytest.mark.parametrize(
    ("name", "slices", "options"),
    [
        ("v5e-8", 1, {}),
        ("v5p-256", 2, OPTIONS),
        ("v6e-256", 1, {}),
        ("tpu7x-512", 2, {}),
    ],
)
def test_manifests_stay_as_they_were(
    name: str, slices: int, options: dict[str, Any], update_golden: bool
) -> None:
    run = run_of(name, slices, **options)
    check_golden(written(run, jobset(run)), f"{name}_{slices}.yaml", update_golden)


def test_a_pod_that_ends_is_treated_as_exit_codes_say() -> None:
    """All 256 of them, by the rules of Kubernetes: first podFailurePolicy, then backoffLimit."""
    spec = jobset(run_of("v5p-8", 1))["spec"]
    job = spec["replicatedJobs"][0]["template"]["spec"]
    [disrupted, by_code] = job["podFailurePolicy"]["rules"]
    assert disrupted["onPodConditions"] == [{"type": "DisruptionTarget", "status": "True"}]
    assert {disrupted["action"], by_code["action"]} == {"FailJob"}
    assert by_code["onExitCodes"]["operator"] == "NotIn"
    assert job["backoffLimit"] == 0
    reasons = {
        code: "BackoffLimitExceeded"
        if code in by_code["onExitCodes"]["values"]
        else "PodFailurePolicy"
        for code in range(256)
        if code != DONE  # no failure at all
    }
    actions = {
        # Messages as Kubernetes words them: pkg/controller/job/pod_failure_policy.go.
        "code": "Container sora for pod a/b failed with exit code 1 matching FailJob rule",
        "disrupted": "Pod a/b has condition DisruptionTarget matching FailJob rule",
    }
    decided = {
        name: decide(spec["failurePolicy"], "PodFailurePolicy", message)
        for name, message in actions.items()
    }
    assert decided == {"code": "FailJobSet", "disrupted": "RestartJobSetAndIgnoreMaxRestarts"}
    after = decide(spec["failurePolicy"], "BackoffLimitExceeded", "Job has reached its limit")
    assert after == "RestartJobSet"
    again = {code for code, reason in reasons.items() if reason == "BackoffLimitExceeded"}
    assert again == {RestartableError.exit_code, *range(128, 256)} == set(restartable_codes())
    assert {RESTARTABLE} <= again
    assert not again & {DONE, FAILED, UserError.exit_code, ConfigError.exit_code}


def decide(policy: dict[str, Any], reason: str, message: str) -> str:
    """What JobSet does: the first rule whose reason and message fit."""
    for rule in policy["rules"]:
        patterns = rule.get("onJobFailureMessagePatterns", [""])
        if reason in rule["onJobFailureReasons"] and any(p in message for p in patterns):
            return str(rule["action"])
    return "RestartJobSet"


def test_a_pod_has_what_a_run_needs() -> None:
    run = run_of("v5p-256", 2, **OPTIONS)
    manifest = jobset(run)
    pod = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert tuple(container["command"]) == run.command  # no shell between SIGTERM and it
    environment = {each["name"]: each["value"] for each in container["env"]}
    assert len(environment) == len(container["env"])
    assert environment["SORA_PROCESSES"] == "auto"
    assert environment["JAX_COORDINATOR_PORT"] == str(PORTS["coordinator"])
    flags = environment["LIBTPU_INIT_ARGS"]
    assert flags == f"{libtpu_init_args('v5p', 2)} --xla_tpu_enable_megascale_barrier=true"
    assert environment["SEED"] == "1e3"
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == GRACE_SECONDS
    assert "/gcs/clips-eu" in [each["mountPath"] for each in container["volumeMounts"]]
    assert (pod["serviceAccountName"], pod["priorityClassName"]) == ("trainer", "high")
    assert manifest["metadata"]["labels"] == {"kueue.x-k8s.io/queue-name": "tpu"}
    assert "value: '1e3'" in written(run, manifest)  # kubectl would take it for a number


def test_the_command_prints_what_it_submits(tmp_path: Path) -> None:
    printed = launch("gke", *SMALLEST)
    assert (printed.returncode, printed.stderr) == (0, "")
    submitted = launch("gke", "--submit", *SMALLEST, PATH=stand_in(tmp_path, "kubectl"))
    assert (submitted.returncode, submitted.stdout) == (0, "")
    assert (tmp_path / "input").read_text() == printed.stdout
    assert (tmp_path / "words").read_text().split() == ["apply", "-f", "-"]


def test_a_failed_submission_says_so(tmp_path: Path) -> None:
    failed = launch("gke", "--submit", *SMALLEST, PATH=stand_in(tmp_path, "kubectl", code=3))
    assert failed.returncode == 1
    assert failed.stderr == "launch.gke: kubectl apply ended with exit code 3\n"
    missing = launch("gke", "--submit", *SMALLEST, PATH="/nowhere")
    assert missing.returncode == 1
    assert missing.stderr == "launch.gke: there is no kubectl on the PATH to submit with\n"


def test_a_harmful_flag_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    flag = "xla_tpu_enable_sparse_core_collective_offload_all_reduce=true"
    words = ("--env", f"LIBTPU_INIT_ARGS=--{flag}", "--accelerator", "v6e-8", *WORDS)
    assert exit_code_of(gke.main, "launch.gke", words) == 0
    warned = capsys.readouterr().err
    assert warned.startswith(f"launch.gke: {flag} on v6e trained to a worse quality")
    assert warned.count("\n") == 1


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--accelerator", "v5p-100", *WORDS), "no accelerator 'v5p-100'; did you mean 'v5p-128'?"),
        (("--slices", "0", *SMALLEST), "--slices 0: a run has at least one slice"),
        (("--slices", "two", *SMALLEST), "argument --slices: invalid int value: 'two'"),
        (("--restarts", "-1", *SMALLEST), "--restarts -1: give 0 or more"),
        (
            ("--name", "c" * 50, *SMALLEST[:4], "--", "sora"),
            f"the name '{'c' * 50}' is 3 characters too long: a pod would be called "
            f"'{'c' * 50}-slice-0-0-abcde', and Kubernetes allows 63",
        ),
        (("--name", "Clips", *SMALLEST[:4], "--", "sora"), "'Clips' is no name of a JobSet"),
        (("--name", "1st", *SMALLEST[:4], "--", "sora"), "and begins with a letter"),
        (("--queue", "a b", *SMALLEST), "'a b' is no value of the label kueue.x-k8s.io/queue-name"),
        (("--namespace", "A", *SMALLEST), "'A' is no name of a namespace"),
        (("--priority", "hi!", *SMALLEST), "'hi!' is no priorityClassName"),
        (("--bucket", "gs://clips", *SMALLEST), "--bucket gs://clips: give its name, without gs"),
        (("--env", "A", *SMALLEST), "--env A: write NAME=VALUE"),
        (("--env", "1=2", *SMALLEST), "'1' is no name of an environment variable"),
        (("--image", "host:5000/sora", *SMALLEST[:2], "--name", "a", "--", "sora"), "has no tag"),
        (SMALLEST[:6], "there is nothing to run: end with -- and a command"),
        ((*SMALLEST[:6], "--"), "there is nothing to run: end with -- and a command"),
        ((*SMALLEST[:4], "--", "sora"), "the following arguments are required: --name"),
        (("--schema", "no_such_file", *SMALLEST), "--schema no_such_file cannot be read"),
        (("--schema", "setup.py", *SMALLEST), "--schema setup.py is no CustomResourceDefinition"),
        (("--slice", "2", *SMALLEST), "unrecognized arguments: --slice 2"),
        (("sora", *SMALLEST), "unrecognized arguments: sora"),
    ],
)
def test_a_mistake_is_one_sentence(
    words: tuple[str, ...], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert exit_code_of(gke.main, "launch.gke", words) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("launch.gke: ")
    assert sentence in said.err
    assert said.err.count("\n") == 1


def test_a_mistake_is_the_exit_code_of_the_command() -> None:
    failed = launch("gke", "--slices", "0", *SMALLEST)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == "launch.gke: --slices 0: a run has at least one slice\n"
