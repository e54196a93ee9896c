"""Prints the JobSet that runs a command on slices of TPU in GKE, or submits it.

    python -m launch.gke --accelerator v5p-256 --slices 2 --image REGISTRY/sora_jax:1 \\
        --name clips-14b --bucket BUCKET -- sora train --experiment dit_14b:p720_on_2_slices \\
        --stage dit --data /gcs/BUCKET/sets/clips --workdir /gcs/BUCKET/runs/clips

The manifest is checked here before anything is printed: names always, and every field where
--schema names the file of JobSet's CustomResourceDefinition.
"""

import argparse
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import yaml

from launch import names, schema
from launch.command_line import Parser, checked_image, checked_slices, command_of, exit_code_of
from launch.environment import LIBTPU, own_environment
from launch.flags import warnings
from launch.jobset import Codes, Run, jobset
from launch.machines import machine_type
from sora_jax.errors import ConfigError, UserError
from sora_jax.pod.accelerators import accelerator

BUCKET = r"[a-z0-9][-_.a-z0-9]{1,61}[a-z0-9]"  # cloud.google.com/storage/docs/buckets
WIDTH = 100
VERSION = "v1alpha2"


def main(arguments: Sequence[str]) -> None:
    """Prints the manifest, or pipes it to kubectl; raises `UserError` for what is wrong with it."""
    parser = _parser()
    if {"-h", "--help"} & set(arguments[:1]):
        parser.print_help()
        return
    flags, command = command_of(arguments)
    chosen = parser.parse_args(flags)
    run = _run(chosen, command)
    manifest = jobset(run)
    wrong = names.complaints(manifest)
    if not wrong and chosen.schema is not None:
        wrong = schema.complaints(manifest, schema.load_schema(chosen.schema, VERSION))
    if wrong:
        raise ConfigError(wrong[0])
    own_flags = run.environment.get(LIBTPU, "")
    for sentence in warnings(own_flags, run.accelerator.chip.generation):
        print(f"launch.gke: {sentence}", file=sys.stderr)
    text = written(run, manifest)
    if chosen.submit:
        _submit(text)
    else:
        sys.stdout.write(text)


def _parser() -> Parser:
    parser = Parser("launch.gke", __doc__)
    parser.add_argument("--accelerator", required=True, help="of a slice, such as v5p-256")
    parser.add_argument("--slices", type=int, default=1)
    parser.add_argument("--image", required=True, help="with its tag or digest")
    parser.add_argument("--name", required=True, help="of the JobSet; pods are NAME-slice-0-0 ...")
    parser.add_argument("--namespace", help="(default: kubectl's)")
    parser.add_argument("--queue", help="a local queue of Kueue")
    parser.add_argument("--priority", help="a priority class")
    parser.add_argument("--service_account", help="of Kubernetes, which may open the bucket")
    parser.add_argument("--bucket", help="to be mounted at /gcs/BUCKET")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument(
        "--restarts", type=int, default=50, help="after failures, not counting preemptions (50)"
    )
    parser.add_argument("--schema", help="file of JobSet's CustomResourceDefinition to check by")
    parser.add_argument("--submit", action="store_true", help="hand it to kubectl apply")
    return parser


def _run(chosen: argparse.Namespace, command: Sequence[str]) -> Run:
    checked_slices(chosen.slices)
    checked_image(chosen.image)
    if chosen.bucket is not None and re.fullmatch(BUCKET, chosen.bucket) is None:
        raise ConfigError(f"--bucket {chosen.bucket}: give its name, without gs:// and folders")
    if chosen.restarts < 0:
        raise ConfigError(f"--restarts {chosen.restarts}: give 0 or more")
    return Run(
        name=chosen.name,
        accelerator=accelerator(chosen.accelerator),
        slices=chosen.slices,
        image=chosen.image,
        command=tuple(command),
        restarts=chosen.restarts,
        environment=own_environment(chosen.env),
        namespace=chosen.namespace,
        queue=chosen.queue,
        priority=chosen.priority,
        service_account=chosen.service_account,
        bucket=chosen.bucket,
    )


class _Dumper(yaml.SafeDumper):
    """Block style, lists indented, nothing by reference, exit codes on few lines."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        del indentless
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: object) -> bool:
        del data
        return True


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    # kubectl takes 1e3 and 0o17 for numbers, which PyYAML, of an older YAML, would leave unquoted.
    style = "'" if re.match(r"[-+.]?\d", value) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(
    Codes,
    lambda dumper, codes: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", codes, flow_style=True
    ),
)


def written(run: Run, manifest: dict[str, Any]) -> str:
    """The manifest as YAML, headed by what it takes."""
    each = run.accelerator
    slices = "1 slice" if run.slices == 1 else f"{run.slices} slices"
    hosts = run.slices * each.hosts
    heading = (
        f"# {slices} of {each.name} ({each.topology}): {run.slices * each.chips} chips on {hosts} "
        f"{machine_type(each)}\n"
    )
    body = yaml.dump(
        manifest, Dumper=_Dumper, sort_keys=False, default_flow_style=False, width=WIDTH
    )
    return heading + body


def _submit(text: str) -> None:
    try:
        done = subprocess.run(["kubectl", "apply", "-f", "-"], input=text, text=True, check=False)
    except FileNotFoundError as error:
        raise UserError("there is no kubectl on the PATH to submit with") from error
    if done.returncode:
        raise UserError(f"kubectl apply ended with exit code {done.returncode}")


if __name__ == "__main__":
    sys.exit(exit_code_of(main, "launch.gke", sys.argv[1:]))
