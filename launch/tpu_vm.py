"""Prints the gcloud commands that run a command on TPU VMs, or runs one step of them.

    python -m launch.tpu_vm --accelerator v5p-256 --slices 2 --zone us-east5-a --spot \\
        --image REGISTRY/sora_jax:1 --name clips-14b -- sora train \\
        --experiment dit_14b:p720_on_2_slices --stage dit --data /mnt/sets/clips \\
        --workdir /mnt/runs/clips

Steps, in order: create asks for the slices, describe says whether they are there, install lets
hosts fetch the image, start runs the command on all of them, logs follows it, stop has it save and
end, delete gives the slices back. `--step STEP --nodry_run` runs one; nothing is run otherwise.

The image runs in Docker, which TPU VMs have; their own Python is too old. Each host starts it again
as long as it ends with exit code 42 or by a signal. What hosts have mounted under /mnt, such as a
bucket or a file system that they share, is there for it. A spot VM that is taken away does not come
back: create again under another name, and the run goes on from its last checkpoint.
"""

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence

from launch.command_line import Parser, checked_image, checked_slices, command_of, exit_code_of
from launch.environment import LIBTPU, environment, own_environment
from launch.flags import warnings
from launch.jobset import FIRST_SIGNAL, GRACE_SECONDS
from launch.machines import NAMES, api_type
from launch.names import DNS_1035
from sora_jax.errors import RESTARTABLE, ConfigError, UserError
from sora_jax.pod.accelerators import Accelerator, accelerator

STEPS = ("create", "describe", "install", "start", "logs", "stop", "delete")
PAUSE_SECONDS = 10  # before a restart: hosts end within seconds of each other


def main(arguments: Sequence[str]) -> None:
    """Prints all steps, or the one of --step, which --nodry_run runs."""
    parser = _parser()
    if {"-h", "--help"} & set(arguments[:1]):
        parser.print_help()
        return
    words, command = command_of(arguments)
    chosen = parser.parse_args(words)
    checked_slices(chosen.slices)
    checked_image(chosen.image)
    if re.fullmatch(DNS_1035, chosen.name) is None:
        raise ConfigError(
            f"--name {chosen.name}: it has lower-case letters, digits and -, and begins with a "
            "letter"
        )
    if not chosen.dry_run and chosen.step is None:
        raise ConfigError(f"--nodry_run runs one step: give --step, of {', '.join(STEPS)}")
    slice_ = accelerator(chosen.accelerator)
    own = own_environment(chosen.env)
    for sentence in warnings(own.get(LIBTPU, ""), slice_.chip.generation):
        print(f"launch.tpu_vm: {sentence}", file=sys.stderr)
    told = environment(slice_.chip.generation, chosen.slices, own)
    steps = {
        "create": [_create(chosen, slice_)],
        "describe": [_queued("describe", chosen, "--format=value(state.state)")],
        "install": _on_hosts(chosen, _install(chosen.image)),
        "start": _on_hosts(chosen, _start(chosen, told, command)),
        "logs": _on_hosts(chosen, f"tail -n 100 -F {chosen.name}.log", worker="0")[:1],
        "stop": _on_hosts(chosen, _stop(chosen.name)),
        "delete": [_queued("delete", chosen, "--force", "--quiet")],  # with its VMs
    }
    for step in STEPS if chosen.step is None else (chosen.step,):
        if chosen.dry_run:
            print(f"# {step}")
            print(*map(shlex.join, steps[step]), sep="\n")
        else:
            _run(steps[step])


def _parser() -> Parser:
    parser = Parser("launch.tpu_vm", __doc__)
    parser.add_argument("--accelerator", required=True, help="of a slice, such as v5p-256")
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--zone", required=True)
    parser.add_argument("--project", help="(default: gcloud's)")
    parser.add_argument("--image", required=True, help="with its tag or digest")
    parser.add_argument("--name", required=True, help="of the queued resource and its VMs")
    parser.add_argument("--service_account", help="of the VMs, which may open the bucket")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--spot", action="store_true", help="cheaper, and taken away at any time")
    kind.add_argument("--reserved", action="store_true", help="out of a reservation")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--restarts", type=int, default=50, help="of each host (50)")
    parser.add_argument("--step", choices=STEPS)
    dry = parser.add_mutually_exclusive_group()
    dry.add_argument("--dry_run", action="store_true", default=True, help="print only (default)")
    dry.add_argument("--nodry_run", dest="dry_run", action="store_false", help="run the --step")
    return parser


def _nodes(chosen: argparse.Namespace) -> list[str]:
    """The slices, as gcloud names them."""
    if chosen.slices == 1:
        return [chosen.name]
    return [f"{chosen.name}-{number}" for number in range(chosen.slices)]


def _where(chosen: argparse.Namespace) -> list[str]:
    project = [f"--project={chosen.project}"] if chosen.project else []
    return [f"--zone={chosen.zone}", *project]


def _queued(verb: str, chosen: argparse.Namespace, *flags: str) -> list[str]:
    words = ["gcloud", "compute", "tpus", "queued-resources", verb, chosen.name]
    return [*words, *_where(chosen), *flags]


def _create(chosen: argparse.Namespace, slice_: Accelerator) -> list[str]:
    several = [f"--node-count={chosen.slices}", f"--node-prefix={chosen.name}"]
    flags = [
        f"--accelerator-type={api_type(slice_)}",
        f"--runtime-version={NAMES[slice_.chip.generation].runtime}",
        *(several if chosen.slices > 1 else [f"--node-id={chosen.name}"]),
    ]
    if chosen.service_account:
        flags.append(f"--service-account={chosen.service_account}")
    flags += [f"--{kind}" for kind in ("spot", "reserved") if getattr(chosen, kind)]
    return _queued("create", chosen, *flags)


def _on_hosts(chosen: argparse.Namespace, script: str, worker: str = "all") -> list[list[str]]:
    ssh = ["gcloud", "compute", "tpus", "tpu-vm", "ssh"]
    flags = [*_where(chosen), f"--worker={worker}", f"--command={script}"]
    return [[*ssh, node, *flags] for node in _nodes(chosen)]


def _install(image: str) -> str:
    """Lets the user, from the next login on, use Docker, and Docker fetch the image."""
    registry = shlex.quote(image.partition("/")[0])
    return f'sudo usermod -aG docker "$USER" && gcloud auth configure-docker {registry} --quiet'


def _start(chosen: argparse.Namespace, told: dict[str, str], command: Sequence[str]) -> str:
    """A loop that outlives the login; its file of output is NAME.log."""
    name = chosen.name
    variables = [word for pair in told.items() for word in ("--env", "=".join(pair))]
    # The TPU's devices and the metadata server by which jax finds its hosts are the host's.
    docker = ["docker", "run", "--rm", f"--name={name}", "--privileged", "--net=host", "--ipc=host"]
    docker.append("--volume=/mnt:/mnt")
    run = shlex.join([*docker, *variables, chosen.image, *command])
    loop = (
        f"for attempt in $(seq 0 {chosen.restarts}); do {run}; code=$?; "
        f'echo "attempt $attempt ended with exit code $code"; '
        f"[ -e {name}.stop ] && break; "
        f"[ $code -eq {RESTARTABLE} ] || [ $code -ge {FIRST_SIGNAL} ] || break; "
        f"sleep {PAUSE_SECONDS}; done"
    )
    return f"trap '' HUP; rm -f {name}.stop; ({loop}) > {name}.log 2>&1 < /dev/null &"


def _stop(name: str) -> str:
    return f"touch {name}.stop; docker stop --time={GRACE_SECONDS} {name}"


def _run(commands: Sequence[Sequence[str]]) -> None:
    """All at once, since one that waits for the other slices must not keep them from starting."""
    try:
        running = [subprocess.Popen(command) for command in commands]
    except FileNotFoundError as error:
        raise UserError("there is no gcloud on the PATH to run this with") from error
    codes = [each.wait() for each in running]
    if any(codes):
        failed = shlex.join(commands[next(n for n, code in enumerate(codes) if code)][:6])
        raise UserError(f"{failed} ended with exit code {next(filter(None, codes))}")


if __name__ == "__main__":
    sys.exit(exit_code_of(main, "launch.tpu_vm", sys.argv[1:]))
