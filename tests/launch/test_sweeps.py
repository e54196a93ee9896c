"""A worker of a sweep is launched by the command that the README gives."""

import shlex

import yaml

from sora_jax.cli import sweep_run
from tests.launch.runs import launch
from tests.processes import CHECKOUT


def documented() -> list[str]:
    """Words of the README's command that runs a sweep, behind `python -m launch.gke`."""
    text = (CHECKOUT / "launch" / "README.md").read_text().replace("\\\n", " ")
    [line] = [each for each in text.splitlines() if each.startswith("python ") and "sweep" in each]
    line = line.replace("BUCKET", "clips-eu").replace("REGISTRY", "registry.example")
    python, flag, module, *words = shlex.split(line)
    assert (python, flag, module) == ("python", "-m", "launch.gke")
    return words


def test_the_documented_worker_is_a_jobset_of_one_slice() -> None:
    words = documented()
    done = launch("gke", *words)
    assert done.returncode == 0, done.stderr
    [job] = yaml.safe_load(done.stdout)["spec"]["replicatedJobs"]
    assert job["replicas"] == 1
    [container] = job["template"]["spec"]["template"]["spec"]["containers"]
    command = container["command"]
    assert command == words[words.index("--") + 1 :]
    assert command[:3] == ["sora", "sweep", "run"]
    mounts = [each["mountPath"] for each in container["volumeMounts"]]
    places = [each for each in command if each.startswith("/gcs/")]
    assert places
    assert all(any(each.startswith(f"{mount}/") for mount in mounts) for each in places)
    # As the command reads them.
    assert sweep_run.FLAGS(["sora sweep run", *command[3:]]) == ["sora sweep run"]
    assert sweep_run.SLICE.value == words[words.index("--accelerator") + 1]
    sweep_run.FLAGS.unparse_flags()
