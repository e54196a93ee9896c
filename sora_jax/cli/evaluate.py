"""score a trained run and write its report.

    sora evaluate --run RUN                unseen scenes of the procedural world
    sora evaluate --run RUN --data SET     clips of a set, which the run may have been trained on

Prints the scores, merges them into metrics.json, and writes report.html, both in the run.
"""

import json
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from absl import flags

from sora_jax.cli.main import run as run_command
from sora_jax.config import ConfigError
from sora_jax.data.captions import TextEmbedder, make_embedder
from sora_jax.data.schema import MANIFEST_FILE
from sora_jax.data.sources import ClipSet
from sora_jax.eval.evaluator import Evaluation, evaluate_examples, evaluate_world
from sora_jax.eval.examples import longest, set_examples
from sora_jax.eval.report import read_curves, table_text, write_report
from sora_jax.files import write_json
from sora_jax.networks import LoadedRun, load_run, make_sampler
from sora_jax.train.executables import keep_on_disk

FLAGS = flags.FlagValues()
RUN = flags.DEFINE_string("run", None, "directory of a trained run", flag_values=FLAGS)
DATA = flags.DEFINE_string(
    "data", None, "set of clips to score on, in place of the world", flag_values=FLAGS
)
EMBED = flags.DEFINE_string(
    "embed",
    None,
    "MODULE:FUNCTION that makes embeddings of captions, for a run that was trained on them",
    flag_values=FLAGS,
)

METRICS_FILE, REPORT_FILE = "metrics.json", "report.html"


def main(argv: Sequence[str]) -> None:
    """Scores one run."""
    if RUN.value is None:
        raise ConfigError("sora evaluate needs --run, the directory of a trained run")
    keep_on_disk()
    clips = None if DATA.value is None else ClipSet(DATA.value)
    evaluate_run(Path(RUN.value), clips, make_embedder(EMBED.value))


def evaluate_run(
    directory: Path, clips: ClipSet | None = None, embed: TextEmbedder | None = None
) -> dict[str, float]:
    """Scores the run of a directory, on the world or on a set; returns the metrics. `embed`: as of
    `load_run`.

    Raises:
        UserError: there is no such run, or a file cannot be written.
    """
    run = load_run(directory, embed=embed)
    evaluation = _evaluation(run, clips)
    write_metrics(directory / METRICS_FILE, evaluation.metrics)
    stages = [(stage, directory / stage / "metrics.jsonl") for stage in ("vae", "dit")]
    write_report(
        directory / REPORT_FILE,
        evaluation,
        curves={stage: read_curves(path) for stage, path in stages if path.exists()},
        made_by=_made_by(run, clips),
    )
    print(table_text(evaluation.metrics))
    print(f"scores: {directory / METRICS_FILE}\nreport: {directory / REPORT_FILE}")
    return evaluation.metrics


def _evaluation(run: LoadedRun, clips: ClipSet | None) -> Evaluation:
    experiment, sampler = run.experiment, make_sampler(run)
    config, data = experiment.evaluation, experiment.data
    if clips is None:
        return evaluate_world(sampler, config, experiment.world, data.buckets, data.fps)
    clips.require_pixels("scoring")
    filled = [data.buckets[index] for index in clips.filled_buckets(data)]
    if not filled:
        raise ConfigError(f"{clips.directory} has no clip of the sizes that the run was made for")
    return evaluate_examples(sampler, config, set_examples(clips, longest(filled), config.prompts))


def _made_by(run: LoadedRun, clips: ClipSet | None) -> dict[str, str]:
    """Where the numbers come from, for the foot of the report."""
    experiment = run.experiment
    first, config = experiment.evaluation.seed, experiment.evaluation
    unseen = (
        f"scenes of the world with seeds {first} to {first + config.prompts + config.images - 1}"
    )
    command = f"sora evaluate --run {shlex.quote(str(run.directory))}"
    if clips is not None:
        command += f" --data {shlex.quote(str(clips.directory))}"
    sampling = experiment.sampling
    return {
        "command": command,
        "experiment": f"{experiment.name}, config {run.fingerprints['experiment']}",
        "checkpoints": f"vae {run.fingerprints['vae']}, dit {run.fingerprints['dit']}",
        "scored on": unseen
        if clips is None
        else f"{clips.directory} ({MANIFEST_FILE} {clips.manifest.id})",
        "sampling": f"{sampling.steps} {sampling.method} steps, guidance {sampling.guidance}",
    }


def write_metrics(path: Path, metrics: Mapping[str, float]) -> None:
    """Merges metrics into a JSON file, which is written whole.

    Raises:
        UserError: the file is not JSON, or cannot be written.
    """
    present: dict[str, float] = {}
    if path.exists():
        try:
            present = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ConfigError(f"{path} is not JSON ({error}): remove it") from error
    write_json(path, present | dict(metrics))


if __name__ == "__main__":
    run_command(sys.modules[__name__], sys.argv[1:])
