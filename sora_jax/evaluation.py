"""A run's checkpoint -> scores and a report: restored over the devices here, scored, written.

An evaluation leaves in its output directory

    metrics.json         every number by name, and what it is of: one checkpoint, one set
    evaluations.jsonl    the same for each checkpoint that was evaluated there, a line each
    vbench_results.json  VBench's dimensions, if they were asked for, as its own tool writes them
    report.html          tables, curves and playing clips, in one file
    evaluation/ema-300   what was found of each clip at step 300 (eval/store.py)
"""

import dataclasses
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sora_jax.config import override
from sora_jax.data.captions import TextEmbedder
from sora_jax.data.schema import MANIFEST_FILE
from sora_jax.data.sources import ClipSet
from sora_jax.errors import ConfigError
from sora_jax.eval.choice import chosen_suites
from sora_jax.eval.evaluator import Evaluation, evaluate, evaluation_of
from sora_jax.eval.examples import longest_examples
from sora_jax.eval.material import (
    Material,
    Networks,
    set_material,
    simulated_material,
    world_material,
)
from sora_jax.eval.report import Curve, read_curves, write_report
from sora_jax.eval.store import DiskStore
from sora_jax.eval.suite import Found, Suite, collect
from sora_jax.eval.tables import table_text
from sora_jax.experiment import Experiment
from sora_jax.files import write_file, write_json
from sora_jax.networks import LoadedRun, Parameters, experiment_of, load_run, make_sampler
from sora_jax.processes import code_id, is_first, wait_for_all
from sora_jax.sample.video_io import vbench_names
from sora_jax.sharding.mesh import MeshConfig

METRICS_FILE, HISTORY_FILE, REPORT_FILE = "metrics.json", "evaluations.jsonl", "report.html"
VBENCH_FILE = "vbench_results.json"
VERSION = 1  # of the names in METRICS_FILE
Line = dict[str, Any]  # of HISTORY_FILE


@dataclasses.dataclass(frozen=True)
class Asked:
    """What is evaluated, how, and where it is written.

    `suites`: their names, or none for all that the clips allow. `clips`: a set to score on in place
    of the world. `like`, `embed`: as of `load_run`. `i3d`: a file of its weights, in place of those
    that are installed. `backbones`: further networks, as of `given_backbone`. `clip`: a folder of
    CLIP, as of `read_clip`.
    """

    directory: Path
    output: Path
    suites: tuple[str, ...] = ()
    parameters: Parameters = "ema"
    clips: ClipSet | None = None
    embed: TextEmbedder | None = None
    like: Experiment | None = None
    i3d: str = ""
    backbones: tuple[str, ...] = ()
    clip: str = ""

    def scored_on(self, experiment: Experiment) -> str:
        """The clips, in words."""
        if self.clips is not None:
            return f"{self.clips.directory} ({MANIFEST_FILE} {self.clips.manifest.id})"
        config = experiment.evaluation
        last = config.seed + config.prompts + config.images - 1
        if config.worlds:
            return f"worlds {', '.join(config.worlds)} with seeds from {config.seed}"
        return f"scenes of the world with seeds {config.seed} to {last}"


def experiment_for(directory: Path, changes: Sequence[str] = ()) -> Experiment:
    """The experiment of a run, over all devices here, with changes such as
    "evaluation.prompts=16"."""
    own = dataclasses.replace(experiment_of(directory), mesh=MeshConfig())
    return override(own, *changes)


@dataclasses.dataclass(frozen=True)
class Evaluated:
    """Metrics by name, and files of what was found of each clip, by suite. Both are empty in all
    processes but one."""

    metrics: dict[str, float]
    published: dict[str, Path]


def evaluate_run(asked: Asked, step: int | None = None) -> Evaluated:
    """Scores the checkpoint of a step, by default the newest, as far as that was not done before,
    and writes what it finds.

    Raises:
        UserError: there is no such run, checkpoint or suite, or a file cannot be written.
    """
    run = load_run(
        asked.directory,
        like=asked.like,
        embed=asked.embed,
        step=step,
        parameters=asked.parameters,
    )
    if is_first():
        checkpoint = run.fingerprints["dit"]
        print(f"{asked.parameters} of {checkpoint}: {run.bytes_read:,} bytes read", flush=True)
    networks = Networks(asked.output / "evaluation", asked.i3d, asked.backbones, asked.clip)
    material = dataclasses.replace(_material(asked, run), networks=networks)
    chosen = chosen_suites(asked.suites, material)
    place = asked.output / "evaluation" / f"{run.parameters}-{run.step}"
    store = DiskStore(place, _model(run), chosen)
    config, rows = material.config, run.experiment.sampling.rows
    evaluate(chosen, config, rows, store)
    result = Evaluated({}, {})
    if is_first():
        found = evaluation_of(chosen, config, rows, store)
        result = Evaluated(found.metrics, {each.name: store.place(each.name) for each in chosen})
        _write(asked, run, found)
        for suite in chosen:
            _write_vbench(asked.output / VBENCH_FILE, suite, collect(suite, rows, store))
    wait_for_all(f"evaluated step {run.step}")
    return result


def _material(asked: Asked, run: LoadedRun) -> Material:
    experiment, sampler = run.experiment, make_sampler(run)
    config, data = experiment.evaluation, experiment.data
    if asked.clips is None and config.worlds:
        return simulated_material(sampler, config, data.buckets, data.fps)
    if asked.clips is None:
        return world_material(sampler, config, experiment.world, data.buckets, data.fps)
    return set_material(sampler, config, longest_examples(asked.clips, data, config.prompts))


def _model(run: LoadedRun) -> str:
    """All that answers depend on beside the question."""
    sampling = run.experiment.sampling
    return f"{run.fingerprints} {run.parameters} {sampling} {code_id()}"


def _write(asked: Asked, run: LoadedRun, found: Evaluation) -> None:
    """Metrics, history and report; says where they are."""
    of = {
        "version": VERSION,
        "checkpoint": run.fingerprints["dit"],
        "step": run.step,
        "params": run.parameters,
        "scored_on": asked.scored_on(run.experiment),
    }
    history = add_to_history(asked.output / HISTORY_FILE, of, found.metrics)
    write_metrics(asked.output / METRICS_FILE, found.metrics, of)
    stages = [(stage, asked.directory / stage / "metrics.jsonl") for stage in ("vae", "dit")]
    write_report(
        asked.output / REPORT_FILE,
        found,
        curves={stage: read_curves(path) for stage, path in stages if path.exists()},
        made_by=_made_by(asked, run),
        history=_over_steps(history, of),
    )
    print(table_text(found.metrics))
    print(f"scores: {asked.output / METRICS_FILE}\nreport: {asked.output / REPORT_FILE}")


def _write_vbench(path: Path, suite: Suite, found: Found) -> None:
    """What was found of VBench's dimensions, if anything, in the form of its own tool."""
    prefix = f"{suite.name}/vbench/"
    values = {
        name.removeprefix(prefix): score.values.tolist()
        for name, score in found.scores.items()
        if name.startswith(prefix) and "/" not in name.removeprefix(prefix)
    }
    if values:
        from sora_jax.eval.vbench import results

        names = vbench_names([example.prompt for example in suite.examples])
        write_json(path, results(values, names))


def _made_by(asked: Asked, run: LoadedRun) -> dict[str, str]:
    """Where the numbers come from, for the foot of the report."""
    words = ["sora evaluate --checkpoint", shlex.quote(str(run.directory)), f"--step {run.step}"]
    words += [f"--params {run.parameters}"] if run.parameters != "ema" else []
    words += [f"--suite {','.join(asked.suites)}"] if asked.suites else []
    words += [f"--data {shlex.quote(str(asked.clips.directory))}"] if asked.clips else []
    words += [f"--clip {shlex.quote(asked.clip)}"] if asked.clip else []
    words += [f"--i3d {shlex.quote(asked.i3d)}"] if asked.i3d else []
    words += [f"--backbone {shlex.quote(place)}" for place in asked.backbones]
    experiment, sampling = run.experiment, run.experiment.sampling
    return {
        "command": " ".join(words),
        "experiment": f"{experiment.name}, config {run.fingerprints['experiment']}",
        "checkpoints": f"vae {run.fingerprints['vae']}, dit {run.fingerprints['dit']}",
        "parameters": f"{run.parameters}, {run.bytes_read:,} bytes read",
        "scored on": asked.scored_on(experiment),
        "sampling": f"{sampling.steps} {sampling.method} steps, guidance {sampling.guidance}",
    }


def write_metrics(
    path: Path, metrics: Mapping[str, float], of: Mapping[str, object] | None = None
) -> None:
    """Writes metrics to a JSON file, whole; merged with what is there, unless that is `of`
    something else.

    Raises:
        UserError: the file is not JSON, or cannot be written.
    """
    present: Line = {}
    if path.exists():
        try:
            present = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path} is not JSON ({error}): remove it") from error
    if of is not None and not _is_of(present, of):
        present = dict(of)
    write_json(path, present | dict(metrics))


def add_to_history(
    path: Path, of: Mapping[str, object], metrics: Mapping[str, float]
) -> list[Line]:
    """Writes a line of JSON, in the place of one `of` the same, with which it is merged; returns
    all lines.

    Raises:
        UserError: the file is not JSON lines, or cannot be written.
    """
    lines: list[Line] = []
    if path.exists():
        try:
            lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        except ValueError as error:
            raise ConfigError(f"{path} is not JSON lines ({error}): remove it") from error
    before = next((line for line in lines if _is_of(line, of)), {})
    lines = [line for line in lines if not _is_of(line, of)]
    lines.append({**of, **before, **metrics})
    write_file(path, "".join(json.dumps(line) + "\n" for line in lines).encode())
    return lines


def _is_of(line: Line, of: Mapping[str, object]) -> bool:
    return all(line.get(name) == value for name, value in of.items())


def _over_steps(history: list[Line], of: Mapping[str, object]) -> dict[str, Curve]:
    """Every metric by name at the steps that were evaluated as this one, in their order."""
    own = {name: of[name] for name in ("version", "params", "scored_on")}
    curves: dict[str, Curve] = {}
    for line in sorted(
        (each for each in history if _is_of(each, own)), key=lambda each: each["step"]
    ):
        for name, value in line.items():
            if name not in of:
                steps, values = curves.setdefault(name, ([], []))
                steps.append(line["step"])
                values.append(value)
    return curves
