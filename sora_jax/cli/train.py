"""train a stage of an experiment: the autoencoder, then the transformer.

    sora train --experiment demo --data SET --stage vae --workdir runs/mine
    sora train --experiment demo --data SET --stage dit --workdir runs/mine

A run that was stopped, however it was, continues from its newest checkpoint when the same command
is given again, and ends in the same state as one that was never stopped.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
from absl import flags

from sora_jax import __version__
from sora_jax.assemble import dit_run, vae_run
from sora_jax.cli.main import run
from sora_jax.config import ConfigError, fingerprint, load_experiment, to_text
from sora_jax.data.captions import TextEmbedder
from sora_jax.data.mixture import Clips, open_clips
from sora_jax.data.sources import ClipSet
from sora_jax.eval.examples import longest_examples
from sora_jax.experiment import Experiment
from sora_jax.files import local_path
from sora_jax.held_out import HeldOut, scored
from sora_jax.networks import measure_latents
from sora_jax.processes import agree, code_id, is_first, join
from sora_jax.run_directory import open_directory
from sora_jax.started import started_from
from sora_jax.train.executables import Executables, keep_on_disk
from sora_jax.train.loop import train
from sora_jax.train.profile import ProfileWindow
from sora_jax.train.run import STALL_SECONDS as DEFAULT_STALL
from sora_jax.weights.text_encoders import open_embedder

FLAGS = flags.FlagValues()
EXPERIMENT = flags.DEFINE_string(
    "experiment", None, "name or path of an experiment file", flag_values=FLAGS
)
SET = flags.DEFINE_multi_string(
    "set", [], "change the experiment: --set dit.depth=12", flag_values=FLAGS
)
DATA = flags.DEFINE_multi_string(
    "data",
    [],
    "directory of the set to train on, or NAME=DIRECTORY for each source of the experiment",
    flag_values=FLAGS,
)
STAGE = flags.DEFINE_enum(
    "stage", "vae", ["vae", "dit"], "what to train; dit needs a trained vae", flag_values=FLAGS
)
WORKDIR = flags.DEFINE_string("workdir", None, "directory of the run", flag_values=FLAGS)
EXECUTABLES = flags.DEFINE_string(
    "executables",
    None,
    "directory of programs that `sora compile --executables` made",
    flag_values=FLAGS,
)
STALL_SECONDS = flags.DEFINE_float(
    "stall_seconds",
    DEFAULT_STALL,
    "a run in which nothing ends for so long hangs: it shows where, and exits with 42",
    lower_bound=0.001,
    flag_values=FLAGS,
)

HELD_OUT = flags.DEFINE_string(
    "held_out",
    None,
    "set of clips that are not trained on, to log the loss of, or how well the autoencoder keeps "
    "them; retention.best may be one of these metrics",
    flag_values=FLAGS,
)
HELD_OUT_EVERY = flags.DEFINE_integer(
    "held_out_every",
    None,
    "steps between such scores (default: the experiment's evaluate_every)",
    lower_bound=1,
    flag_values=FLAGS,
)
EMBED = flags.DEFINE_string(
    "embed",
    None,
    "for a run on embeddings of captions: a folder that `sora import` made, to embed captions in "
    "the step where the set has no embeddings; it, or MODULE:FUNCTION, also embeds those of "
    "--held_out",
    flag_values=FLAGS,
)
PROFILE_STEPS = flags.DEFINE_string(
    "profile_steps",
    None,
    "steps FIRST:LAST to trace for TensorBoard's profiler, such as 10:15",
    flag_values=FLAGS,
)


START = flags.DEFINE_string(
    "start",
    None,
    "run whose autoencoder --stage vae starts from, instead of at random; one trained on images "
    "alone is inflated to video",
    flag_values=FLAGS,
)


def main(argv: Sequence[str]) -> None:
    """Trains one stage."""
    if EXPERIMENT.value is None or not DATA.value or WORKDIR.value is None:
        raise ConfigError("sora train needs --experiment, --data and --workdir")
    if START.value and STAGE.value != "vae":
        raise ConfigError("--start is for --stage vae: a transformer starts from no other run")
    directory = local_path(WORKDIR.value)
    for each in DATA.value:
        local_path(each)
    profiled = ProfileWindow.parse(PROFILE_STEPS.value) if PROFILE_STEPS.value else None
    join()
    keep_on_disk()
    experiment = load_experiment(EXPERIMENT.value, SET.value)
    clips = open_clips(DATA.value, experiment.data)
    embed, held_out = open_embedder(EMBED.value), None
    if HELD_OUT.value is not None:
        clips_of_it, count = ClipSet(HELD_OUT.value), experiment.evaluation.prompts
        examples = longest_examples(clips_of_it, experiment.data, count)
        held_out = HeldOut(examples, HELD_OUT_EVERY.value, embed)
    agree({**_settings(experiment, clips), "--embed": embed.id if embed else ""})
    if is_first():
        print(f"{to_text(experiment)}fingerprint {fingerprint(experiment)}", flush=True)
    open_directory(experiment, clips, directory)
    train_stage(
        experiment,
        clips,
        directory,
        STAGE.value,
        EXECUTABLES.value,
        held_out=held_out,
        start=local_path(START.value) if START.value else None,
        embed=embed,
        profiled=profiled,
        stall_seconds=STALL_SECONDS.value,
    )


def _settings(experiment: Experiment, clips: Clips) -> dict[str, str]:
    """All that decides a run, by name: what its processes must agree on."""
    fields = dict(line.split(" = ", 1) for line in to_text(experiment).splitlines())
    versions = {"sora_jax": __version__, "jax": jax.__version__, "code": code_id()}
    asked = {"--data": clips.id, "--stage": STAGE.value, "--start": START.value or "nothing"}
    return {**fields, **asked, **versions}


def train_stage(
    experiment: Experiment,
    clips: Clips,
    directory: Path,
    stage: str,
    executables: str | None = None,
    held_out: HeldOut | None = None,
    start: Path | None = None,
    embed: TextEmbedder | None = None,
    **watched: Any,
) -> None:
    """Trains a stage to its end; after the autoencoder, measures its latents. `executables`: the
    directory of programs made beforehand. `held_out`: clips to score as it goes. `start`: a run
    whose autoencoder to start from. `embed`: as of `dit_run`. `watched`: fields of Run about how it
    is watched."""
    if stage == "vae":
        made_run = vae_run(experiment, clips, directory)
    else:
        made_run = dit_run(experiment, clips, directory, embed)
    made_run = dataclasses.replace(made_run, **watched)
    if start is not None:
        made_run = started_from(made_run, experiment, start)
    if held_out is not None:
        made_run = scored(made_run, experiment, held_out)
    if executables is not None:
        made = Executables(executables, list(made_run.mesh.devices.flat))
        made_run = dataclasses.replace(made_run, executables=made)
    train(made_run)
    if stage == "vae":
        measure_latents(experiment, clips, directory)


if __name__ == "__main__":
    run(sys.modules[__name__], sys.argv[1:])
