"""do all of it, small, on the procedural world or on a folder of clips.

    sora demo --workdir runs/demo                      the procedural world
    sora demo --workdir runs/mine --media DIR          captioned .mp4 .mov .webm .jpg .png

Builds a set, trains the autoencoder and the transformer, samples, scores, and says where the
report is. Given again after an interruption, it goes on where it was.
"""

import resource
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from sora_jax.cli.data import build_folder_set, build_world_set
from sora_jax.cli.main import run
from sora_jax.cli.train import train_stage
from sora_jax.config import fingerprint, load_experiment, to_text
from sora_jax.data.sources import ClipSet
from sora_jax.evaluation import METRICS_FILE, Asked, evaluate_run, write_metrics
from sora_jax.run_directory import open_directory
from sora_jax.train.executables import keep_on_disk

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string(
    "workdir", "runs/demo", "directory of the set, the run and the report", flag_values=FLAGS
)
MEDIA = flags.DEFINE_string(
    "media", None, "folder of captioned media instead of the world", flag_values=FLAGS
)
EXPERIMENT = flags.DEFINE_string(
    "experiment", None, "default: demo, or demo_media with --media", flag_values=FLAGS
)
SET = flags.DEFINE_multi_string(
    "set", [], "change the experiment: --set dit.depth=4", flag_values=FLAGS
)
CLIPS = flags.DEFINE_integer("clips", 10_000, "clips of the world in the set", flag_values=FLAGS)


def main(argv: Sequence[str]) -> None:
    """Runs every stage in order."""
    started = time.monotonic()
    keep_on_disk()
    directory = Path(WORKDIR.value)
    name = EXPERIMENT.value or ("demo_media" if MEDIA.value else "demo")
    experiment = load_experiment(name, SET.value)
    print(f"{to_text(experiment)}fingerprint {fingerprint(experiment)}", flush=True)
    data = directory / "data"
    if not data.exists():
        if MEDIA.value:
            build_folder_set(Path(MEDIA.value), data, experiment.data)
        else:
            build_world_set(CLIPS.value, data, experiment.data, experiment.world)
    clips = ClipSet(data)
    open_directory(experiment, clips, directory)
    for stage in ("vae", "dit"):
        train_stage(experiment, clips, directory, stage)
    evaluate_run(Asked(directory, directory, clips=clips if MEDIA.value else None))
    usage = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # KiB on Linux
    figures = {"wall_seconds": time.monotonic() - started, "peak_rss_gib": usage}
    write_metrics(directory / METRICS_FILE, figures)
    minutes, seconds = divmod(round(figures["wall_seconds"]), 60)
    print(f"done in {minutes}:{seconds:02} with {usage:.1f} GiB; see {directory}/report.html")


if __name__ == "__main__":
    run(sys.modules[__name__], sys.argv[1:])
