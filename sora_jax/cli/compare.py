"""compare checkpoints on the same prompts and noise.

    sora compare --checkpoint A --checkpoint B --output DIR              two runs
    sora compare --checkpoint RUN@1000 --checkpoint RUN@32000 --output DIR   two steps of one run

Evaluates each as `sora evaluate` does, but for what is done already, and writes one page: what they
made of each prompt side by side, and every score with its paired difference to the first. Labels
are the training compute as a multiple of the least, such as 1x, 4x and 32x, unless they are given.
"""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from sora_jax.cli.main import run as run_command
from sora_jax.config import ConfigError
from sora_jax.data.sources import ClipSet
from sora_jax.eval.comparison import Compared, tables, write_comparison
from sora_jax.eval.store import read_published
from sora_jax.evaluation import Asked, evaluate_run, experiment_for
from sora_jax.files import local_path
from sora_jax.networks import saved_steps
from sora_jax.processes import agree, code_id, is_first, join, told_of_lost_processes
from sora_jax.train.executables import keep_on_disk
from sora_jax.weights.text_encoders import open_embedder
from sora_jax.work import training_flops

FLAGS = flags.FlagValues()
CHECKPOINT = flags.DEFINE_multi_string(
    "checkpoint",
    [],
    "directory of a trained run, and @STEP unless its newest is meant; give two or more",
    flag_values=FLAGS,
)
LABEL = flags.DEFINE_multi_string(
    "label", [], "what to call each checkpoint (default: its compute)", flag_values=FLAGS
)
SUITE = flags.DEFINE_list(
    "suite", ["text", "loss"], "what to compare, as of sora evaluate", flag_values=FLAGS
)
DATA = flags.DEFINE_string(
    "data", None, "set of clips to compare on, in place of the world", flag_values=FLAGS
)
EMBED = flags.DEFINE_string(
    "embed",
    None,
    "folder that `sora import` made, or MODULE:FUNCTION, that makes embeddings of captions",
    flag_values=FLAGS,
)
SET = flags.DEFINE_multi_string(
    "set", [], "change every run's experiment: --set evaluation.prompts=16", flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string("output", None, "directory to write to", flag_values=FLAGS)

PAGE_FILE = "comparison.html"


def main(argv: Sequence[str]) -> None:
    """Evaluates what is not yet, and compares."""
    if len(CHECKPOINT.value) < 2 or OUTPUT.value is None:
        raise ConfigError("sora compare needs --output, and --checkpoint twice or more")
    if LABEL.value and len(set(LABEL.value)) != len(CHECKPOINT.value):
        raise ConfigError(
            f"{len(CHECKPOINT.value)} checkpoints need as many labels of their own, and "
            f"{len(LABEL.value)} are given"
        )
    output = local_path(OUTPUT.value)
    join()
    keep_on_disk()
    clips = None if DATA.value is None else ClipSet(DATA.value)
    chosen = [_parsed(word) for word in CHECKPOINT.value]
    agree({"code": code_id(), **{f"--{name}": str(FLAGS[name].value) for name in FLAGS}})
    labels = LABEL.value or _labels(chosen)
    compared = []
    with told_of_lost_processes("compare"):
        for (directory, step), label in zip(chosen, labels, strict=True):
            # In a place of its own: the run's report is of another command.
            asked = Asked(
                directory,
                output / label,
                suites=tuple(SUITE.value),
                clips=clips,
                embed=open_embedder(EMBED.value),
                like=experiment_for(directory, SET.value),
            )
            published = evaluate_run(asked, step).published
            found = {name: read_published(path) for name, path in published.items()}
            compared.append(Compared(label, f"{directory}, step {step}", found))
    if is_first():
        page = output / PAGE_FILE
        command = " ".join(["sora compare", *map(shlex.quote, sys.argv[2:])])
        write_comparison(page, compared, {"command": command})
        for table in tables(compared):
            print(f"\n{table.title}\n{table.text()}")
        print(f"comparison: {page}")


def _parsed(word: str) -> tuple[Path, int]:
    """RUN or RUN@STEP; raises a UserError if there is no such checkpoint."""
    name, at, step = word.rpartition("@")
    if at and step.isdigit():
        return local_path(name), int(step)
    steps = saved_steps(local_path(word))
    if not steps:
        raise ConfigError(f"no complete checkpoint in {word}/dit: train first")
    return local_path(word), steps[-1]


def _labels(chosen: Sequence[tuple[Path, int]]) -> list[str]:
    """Training compute as a multiple of the least."""
    flops = [training_flops(experiment_for(directory), step) for directory, step in chosen]
    labels = [f"{each / min(flops):.3g}x" for each in flops]
    if len(set(labels)) == len(labels):
        return labels
    return [f"{label} ({number})" for number, label in enumerate(labels, 1)]


if __name__ == "__main__":
    run_command(sys.modules[__name__], sys.argv[1:])
