"""compile an experiment's steps, or its sampling, for a TPU pod, on a machine without one.

    sora compile --experiment dit_14b:p720 --topology v5p:4x4x4
    sora compile --experiment dit_14b:minute_1080p --topology v5p:4x4x8 --what sample
    sora compile --experiment dit_14b:p720_on_2_slices --topology v5p:4x4x4 --slices 2
    sora compile --experiment dit_400m --topology v5e:4x4 --shape_class 32x8192 --search

Every shape class is compiled as training would run it, for devices that are not there, and a report
says what a step takes: memory a device, FLOPs, what moves between devices, seconds, and what bounds
them. Sampling is three programs: `sample`, all steps of the transformer from noise to latents, and
`vae_decode` and `vae_encode`, one chunk of a clip's stream.

How far each figure can be trusted is in docs/performance.md.
"""

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, get_args

from absl import flags

from sora_jax.cli.main import run
from sora_jax.config import ConfigError, fingerprint, load_experiment
from sora_jax.data.buckets import ShapeClass
from sora_jax.experiment import Experiment
from sora_jax.pod.golden import check
from sora_jax.pod.report import ClassReport, table
from sora_jax.pod.topology import Topology, open_topology
from sora_jax.podcheck import check_class, check_clip
from sora_jax.podsearch import ranking, search
from sora_jax.sampling_programs import Clip, What
from sora_jax.sharding.mesh import make_mesh
from sora_jax.train.executables import Executables, keep_on_disk

FLAGS = flags.FlagValues()
EXPERIMENT = flags.DEFINE_string(
    "experiment", None, "name or path of an experiment file", flag_values=FLAGS
)
SET = flags.DEFINE_multi_string(
    "set", [], "change the experiment: --set mesh.context=4", flag_values=FLAGS
)
TOPOLOGY = flags.DEFINE_string(
    "topology",
    None,
    "chips of a slice, such as v5p:4x4x4 or v6e:16x16, or an accelerator, such as v5p-128",
    flag_values=FLAGS,
)
SLICES = flags.DEFINE_integer("slices", 1, "slices of that topology", flag_values=FLAGS)
WHAT = flags.DEFINE_enum(
    "what",
    "train",
    ["train", *get_args(What)],
    "the step of training, or a program of sampling clips",
    flag_values=FLAGS,
)
CLIP = flags.DEFINE_string(
    "clip",
    None,
    "clips to sample, as FRAMESxHEIGHTxWIDTH (default: the experiment's largest bucket)",
    flag_values=FLAGS,
)
SHAPE_CLASS = flags.DEFINE_string(
    "shape_class",
    "all",
    "all, or one as ROWSxTOKENS, x PARTS, x CONTEXT as in ShapeClass, which need not be declared",
    flag_values=FLAGS,
)
GOLDEN = flags.DEFINE_string(
    "golden",
    None,
    "file of the collectives and memory as they should be; written if there is none",
    flag_values=FLAGS,
)
SEARCH = flags.DEFINE_boolean(
    "search",
    False,
    "rank meshes, context methods, remat policies and micro-batches for the one --shape_class",
    flag_values=FLAGS,
)
EXECUTABLES = flags.DEFINE_string(
    "executables",
    None,
    "directory to keep the programs of training in, for `sora train --executables`",
    flag_values=FLAGS,
)
OUTPUT = flags.DEFINE_string("output", None, "file for the report, as JSON", flag_values=FLAGS)


def main(argv: Sequence[str]) -> None:
    """Compiles, prints a paragraph a class, writes the report."""
    if EXPERIMENT.value is None or TOPOLOGY.value is None:
        raise ConfigError("sora compile needs --experiment and --topology")
    for path in filter(None, (OUTPUT.value, GOLDEN.value)):
        if not Path(path).resolve().parent.is_dir():
            raise ConfigError(f"{path}: there is no such directory; make it first")
    keep_on_disk()
    experiment = load_experiment(EXPERIMENT.value, SET.value)
    topology = open_topology(TOPOLOGY.value, SLICES.value)
    if SEARCH.value:
        _search(experiment, topology)
        return
    reports = []
    for report in _reports(experiment, topology):
        reports.append(report)
        print(table(report), flush=True)
    if OUTPUT.value:
        content = {
            "experiment": EXPERIMENT.value,
            "set": SET.value,
            "what": WHAT.value,
            "fingerprint": fingerprint(experiment),
            "topology": topology.name,
            "slices": topology.slices,
            "chips": topology.chips,
            "classes": [dataclasses.asdict(report) for report in reports],
        }
        Path(OUTPUT.value).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    if GOLDEN.value:
        check(reports, Path(GOLDEN.value))


def _search(experiment: Experiment, topology: Topology) -> None:
    """Prints every choice as it is compiled, then all in order, and writes them."""
    others = GOLDEN.value or EXECUTABLES.value
    if WHAT.value != "train" or SHAPE_CLASS.value == "all" or others:
        raise ConfigError(
            "--search is for the step on one class: give --shape_class, and no --what, --golden or "
            "--executables"
        )
    [shape_class] = _chosen(experiment, SHAPE_CLASS.value)
    if shape_class.parts > 1 or shape_class.context:
        raise ConfigError("--search divides the rows itself: give --shape_class ROWSxTOKENS")

    def compiled(changed: Experiment, shape_class: ShapeClass) -> ClassReport:
        report = check_class(changed, shape_class, topology)
        print(table(report), flush=True)
        return report

    rows = shape_class.rows * experiment.dit_stage.training.micro_batches
    devices = len(topology.devices) // max(experiment.mesh.replica, 1)
    found = search(experiment, rows, shape_class.tokens, devices, compiled)
    print(f"fastest first, for {rows} rows x {shape_class.tokens} tokens:\n{ranking(found)}")
    if OUTPUT.value:
        content = {
            "experiment": EXPERIMENT.value,
            "topology": topology.name,
            "best": found[0].choice.overrides,
            "choices": [
                {"set": one.choice.overrides, "reason": one.reason}
                | {"report": one.report and dataclasses.asdict(one.report)}
                for one in found
            ],
        }
        Path(OUTPUT.value).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _reports(experiment: Experiment, topology: Topology) -> Iterator[ClassReport]:
    """One for each class of training, or one of sampling."""
    what: Any = WHAT.value
    if what == "train":
        if CLIP.value is not None:
            raise ConfigError(
                "--clip is for sampling: give --what sample, vae_decode or vae_encode"
            )
        made = None
        if EXECUTABLES.value is not None:  # in the mesh's order, as a run has its devices
            mesh = make_mesh(experiment.mesh, topology.devices)
            made = Executables(EXECUTABLES.value, list(mesh.devices.flat))
        for shape_class in _chosen(experiment, SHAPE_CLASS.value):
            yield check_class(experiment, shape_class, topology, made)
        return
    if EXECUTABLES.value is not None:
        raise ConfigError("--executables is for training: sampling compiles its own")
    if SHAPE_CLASS.value != "all":
        raise ConfigError(f"--shape_class is for training: of --what {what} give the --clip")
    yield check_clip(experiment, what, _clip(experiment, CLIP.value), topology)


def _clip(experiment: Experiment, text: str | None) -> Clip:
    """The clip that `text` says, or the largest bucket's."""
    if text is None:
        largest = max(experiment.data.buckets, key=experiment.tokens)
        return Clip(largest.frames, largest.height, largest.width)
    sizes = text.split("x")
    if len(sizes) != 3 or not all(size.isdecimal() for size in sizes):
        raise ConfigError(f"--clip {text}: write frames x height x width, such as 1441x1088x1920")
    frames, height, width = map(int, sizes)
    return Clip(frames, height, width)


def _chosen(experiment: Experiment, text: str) -> list[ShapeClass]:
    """All classes that buckets use, from the longest down, or the one that `text` says."""
    if text == "all":
        return sorted(set(experiment.classes()), key=lambda each: -each.tokens)
    sizes = text.split("x")
    if len(sizes) not in (2, 3, 4) or not all(size.isdecimal() for size in sizes):
        raise ConfigError(
            f"--shape_class {text}: write all, or rows x tokens, such as 16x75776, and x parts x "
            "context"
        )
    return [ShapeClass(*map(int, sizes))]


if __name__ == "__main__":
    run(sys.modules[__name__], sys.argv[1:])
