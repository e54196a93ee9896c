"""build, verify and look into sets of captioned clips, and into the batches made of them.

    sora data build --input DIR --output SET --experiment NAME    media with .txt or .json captions
    sora data build --world N --output SET --experiment NAME      N clips of the procedural world,
                                                                  or worlds, of the experiment
    sora data verify SET                                          compare every file with its hash
    sora data inspect SET                                         counts, hours, scores, clips
    sora data schedule --experiment NAME                          padding and cost, by shape class

A set holds the sizes that the experiment's buckets name; ledger.jsonl in it accounts for every
input: emitted, resized, or dropped and why. `inspect` prints what is in a set and writes it as one
page with a contact sheet beside it, SET-contact-sheet.html and .png or as --output says.
`schedule` needs no set: of each period of the curriculum it prints the classes' share of the
batches, their rows and tokens, the share of tokens that are padding, and the training FLOPs of a
batch beside the mean.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from absl import flags

from sora_jax.cli.main import run
from sora_jax.config import load_experiment
from sora_jax.data import inspect
from sora_jax.data.buckets import DataConfig
from sora_jax.data.build import SourceClip, build_set
from sora_jax.data.folder import folder_clips
from sora_jax.data.ledger import Ledger
from sora_jax.data.schema import LEDGER_FILE, Manifest
from sora_jax.data.sources import ClipSet
from sora_jax.data.summary import summarise, summary_text
from sora_jax.data_report import report_text, schedule_report
from sora_jax.errors import ConfigError
from sora_jax.world.scene import WorldConfig
from sora_jax.world.source import WorldSource
from sora_jax.world.worlds import WorldClips, WorldName, find_world

FLAGS = flags.FlagValues()
INPUT = flags.DEFINE_string(
    "input", None, "folder of .mp4 .mov .webm .jpg .png, each with a caption", flag_values=FLAGS
)
WORLD = flags.DEFINE_integer(
    "world", None, "instead of --input: how many clips of the world", flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string(
    "output", None, "the new set; of inspect the sheet, .png, or the page, .html", flag_values=FLAGS
)
EXPERIMENT = flags.DEFINE_string(
    "experiment", None, "experiment that the set, or the schedule, is for", flag_values=FLAGS
)
SET = flags.DEFINE_multi_string(
    "set", [], "change the experiment: --set data.text_length=48", flag_values=FLAGS
)
SHOWN_LINES = 40


def main(argv: Sequence[str]) -> None:
    """Runs the action that the first word names."""
    words = list(argv[1:])
    match words:
        case ["build"]:
            _build()
        case ["verify", directory]:
            clips = ClipSet(directory)
            clips.verify()
            print(f"{directory}: {len(clips.manifest.files())} files are as the manifest says")
        case ["inspect", directory]:
            _inspect(directory)
        case ["schedule"]:
            if EXPERIMENT.value is None:
                raise ConfigError("sora data schedule needs --experiment")
            print(report_text(schedule_report(load_experiment(EXPERIMENT.value, SET.value))))
        case _:
            raise ConfigError(
                f"'sora data {' '.join(words)}' is not understood: "
                "give build, verify DIRECTORY, inspect DIRECTORY or schedule"
            )


def _inspect(directory: str) -> None:
    sheet = Path(OUTPUT.value or f"{directory.rstrip('/')}-contact-sheet.png")
    if sheet.suffix not in (".png", ".html"):
        raise ConfigError(f"--output {sheet}: inspect writes .png and .html, so end it in one")
    clips = ClipSet(directory)
    summary = summarise(clips)
    print(summary_text(clips, summary))
    shown = inspect.shown_clips(clips)
    if shown:  # without the autoencoder there is nothing to show of latents
        inspect.write_sheet(sheet.with_suffix(".png"), shown, summary)
        print(f"contact sheet: {sheet.with_suffix('.png')}")
    inspect.write_page(sheet.with_suffix(".html"), clips, shown, summary)
    print(f"page: {sheet.with_suffix('.html')}")


def _build() -> None:
    if OUTPUT.value is None or EXPERIMENT.value is None:
        raise ConfigError("sora data build needs --output and --experiment")
    experiment = load_experiment(EXPERIMENT.value, SET.value)
    output = Path(OUTPUT.value)
    if INPUT.value is not None and WORLD.value is None:
        build_folder_set(Path(INPUT.value), output, experiment.data)
    elif WORLD.value is not None and INPUT.value is None:
        worlds = experiment.evaluation.worlds
        if worlds:
            build_simulated_set(WORLD.value, output, experiment.data, worlds)
        else:
            build_world_set(WORLD.value, output, experiment.data, experiment.world)
    else:
        raise ConfigError("sora data build needs one of --input and --world")


def build_folder_set(folder: Path, output: Path, config: DataConfig) -> Manifest:
    """Builds a set from a folder of captioned media and prints what became of them.

    Raises:
        DataError: no file is usable, or the set cannot be written.
    """
    ledger = Ledger()
    return _build_set(folder_clips(folder, config, ledger), output, config, ledger)


def build_world_set(
    count: int, output: Path, config: DataConfig, world: WorldConfig, first_seed: int = 0
) -> Manifest:
    """Builds a set of procedural clips, shared among the buckets by weight, and prints a summary.

    Every clip has a scene of its own: seeds run on from `first_seed` through all buckets.

    Raises:
        DataError: the set cannot be written.
    """
    clips = world_clips(count, config, world, first_seed)
    return _build_set(clips, output, config, Ledger())


def build_simulated_set(
    count: int,
    output: Path,
    config: DataConfig,
    worlds: Sequence[WorldName],
    first_seed: int = 0,
) -> Manifest:
    """Builds a set of about `count` clips of these worlds, as many of each, and prints a summary.
    Combinations that are held back are not in it.

    Raises:
        ConfigError: a bucket is not square, or too short.
        DataError: the set cannot be written.
    """
    clips = simulated_clips(count, config, worlds, first_seed)
    return _build_set(clips, output, config, Ledger())


def simulated_clips(
    count: int, config: DataConfig, worlds: Sequence[WorldName], first_seed: int
) -> Iterator[SourceClip]:
    """Of each bucket by its weight, worlds in turn, seeds from `first_seed` through all buckets."""
    buckets = config.stored_buckets()
    total = sum(bucket.weight for bucket in buckets)
    for bucket in buckets:
        if bucket.height != bucket.width:
            raise ConfigError(f"worlds are seen in square frames, and bucket {bucket.name} is none")
        share = max(1, round(count * bucket.weight / total / len(worlds)))
        seeds = range(first_seed, first_seed + share)
        first_seed += share
        sources = [
            WorldClips(find_world(name), "train", seeds, bucket.frames, bucket.height, config.fps)
            for name in worlds
        ]
        for index in range(share):
            for clip in (source[index] for source in sources):
                yield SourceClip(clip.clip_id, clip.clip_id, clip.caption, clip.video, clip.fps)


def world_clips(
    count: int, config: DataConfig, world: WorldConfig, first_seed: int
) -> Iterator[SourceClip]:
    """About `count` clips of the procedural world, at least one for each bucket."""
    buckets = config.stored_buckets()
    total = sum(bucket.weight for bucket in buckets)
    for bucket in buckets:
        share = max(1, round(count * bucket.weight / total))
        seeds = range(first_seed, first_seed + share)
        first_seed += share
        source = WorldSource(world, bucket.frames, bucket.height, bucket.width, config.fps, seeds)
        for clip in (source[index] for index in range(len(source))):
            yield SourceClip(clip.clip_id, clip.clip_id, clip.caption, clip.video, clip.fps)


def _build_set(
    clips: Iterator[SourceClip], output: Path, config: DataConfig, ledger: Ledger
) -> Manifest:
    try:
        manifest = build_set(clips, output, config, ledger)
    finally:  # also where nothing was usable: then these lines are all there is to see
        told = [line for line in ledger.lines if line["outcome"] != "emitted"]
        for line in told[:SHOWN_LINES]:
            detail = f" ({line['detail']})" if "detail" in line else ""
            print(f"{line['outcome']}: {line['source']}: {line['reason']}{detail}")
        if len(told) > SHOWN_LINES:
            print(f"... and {len(told) - SHOWN_LINES} more like these")
    for bucket in config.stored_buckets():
        records = manifest.records(bucket.name)
        print(f"{bucket.name:14} {records:8} clips{'' if records else ' (nothing to train on)'}")
    print(", ".join(f"{name} {count}" for name, count in manifest.ledger_counts.items()))
    print(f"{output}: see {LEDGER_FILE} there for every input")
    return manifest


if __name__ == "__main__":
    run(sys.modules[__name__], sys.argv[1:])
