"""make videos and images from captions with a trained run.

    sora sample --run RUN --prompt "a red circle moves left"      a video
    sora sample --run RUN --prompt "a blue star" --frames 1       an image
    sora sample --run RUN --image FILE --prompt "it moves left"   a video that begins with an image
    sora sample --run RUN --video FILE --frames 13                a video that goes on from another

Any size and duration that the networks divide. Writes an MP4 or PNG for each sample, which says all
that made it, as does a JSON beside it, and a contact sheet. --expand makes long prompts of short
ones, by rule for the procedural world or by a language model, and keeps those that lose no fact.
"""

import collections
import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from absl import flags
from jaxtyping import UInt8

from sora_jax.cli.main import run as run_command
from sora_jax.config import ConfigError, load_experiment
from sora_jax.data.buckets import Bucket, nearest_size
from sora_jax.data.footage import read_frames, read_image, scan_video
from sora_jax.data.transforms import fit, fit_changes
from sora_jax.expansion.expand import expand, make_expander
from sora_jax.networks import LoadedRun, load_run, make_sampler
from sora_jax.provenance import provenance_of
from sora_jax.sample.generate import Sampler
from sora_jax.sample.requests import Request
from sora_jax.sample.video_io import write_for_vbench, write_samples
from sora_jax.train.executables import keep_on_disk
from sora_jax.weights.text_encoders import open_embedder

Number = TypeVar("Number", int, float)

FLAGS = flags.FlagValues()
RUN = flags.DEFINE_string("run", None, "directory of a trained run", flag_values=FLAGS)
EXPERIMENT = flags.DEFINE_string(
    "experiment",
    None,
    "experiment that trains the same as the run, to sample over its mesh and as it says, such as "
    "dit_14b:minute_1080p (default: the run's, over all devices)",
    flag_values=FLAGS,
)
PROMPT = flags.DEFINE_multi_string(
    "prompt", [], "what to show; may be given several times", flag_values=FLAGS
)
PROMPTS_FILE = flags.DEFINE_string(
    "prompts_file", None, "text file with a prompt a line", flag_values=FLAGS
)
EMBED = flags.DEFINE_string(
    "embed",
    None,
    "folder that `sora import` made, or MODULE:FUNCTION, that makes embeddings of captions, for a "
    "run that was trained on them",
    flag_values=FLAGS,
)
EXPAND = flags.DEFINE_string(
    "expand",
    None,
    "expand prompts: offline, to captions of the procedural world, or by a language model at "
    "http://HOST/v1, OpenAI-compatible, with the key in OPENAI_API_KEY",
    flag_values=FLAGS,
)
EXPAND_MODEL = flags.DEFINE_string(
    "expand_model", None, "language model of --expand, as the server calls it", flag_values=FLAGS
)
IMAGE = flags.DEFINE_string("image", None, "image to begin with", flag_values=FLAGS)
VIDEO = flags.DEFINE_string("video", None, "video to go on from its end", flag_values=FLAGS)
GIVEN_FRAMES = flags.DEFINE_integer(
    "given_frames",
    None,
    "how many last frames of --video to begin with (default: the fewest that show motion)",
    flag_values=FLAGS,
)
FRAMES = flags.DEFINE_integer(
    "frames",
    None,
    "frames of a clip, 1 for an image (default: the longest trained on)",
    flag_values=FLAGS,
)
HEIGHT = flags.DEFINE_integer("height", None, "pixels (default: as trained)", flag_values=FLAGS)
WIDTH = flags.DEFINE_integer("width", None, "pixels (default: as trained)", flag_values=FLAGS)
FPS = flags.DEFINE_float(
    "fps",
    None,
    "frames per second (default: the experiment's, or that of --video)",
    flag_values=FLAGS,
)
SEED = flags.DEFINE_integer("seed", 0, "of the first sample; they count up", flag_values=FLAGS)
COUNT = flags.DEFINE_integer("count", 1, "samples of each prompt", flag_values=FLAGS)
STEPS = flags.DEFINE_integer(
    "steps", None, "steps from noise to data (default: the experiment's)", flag_values=FLAGS
)
GUIDANCE = flags.DEFINE_float(
    "guidance",
    None,
    "how hard to follow the caption (default: the experiment's)",
    flag_values=FLAGS,
)
METHOD = flags.DEFINE_enum(
    "method", None, ["euler", "heun"], "integrator (default: the experiment's)", flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string(
    "output", None, "directory for the files (default: samples in the run)", flag_values=FLAGS
)
VBENCH = flags.DEFINE_bool(
    "vbench",
    False,
    "name videos as VBench's tool looks for them, PROMPT-0.mp4 and on, and write nothing else; it "
    "wants --count 5 of each of its prompts",
    flag_values=FLAGS,
)


@dataclasses.dataclass(frozen=True)
class Start:
    """Frames to begin with, as they are in their file."""

    path: str
    frames: UInt8[np.ndarray, "t h w 3"]
    fps: float | None  # None of an image


def main(argv: Sequence[str]) -> None:
    """Samples, writes, and says where."""
    if RUN.value is None:
        raise ConfigError("sora sample needs --run, the directory of a trained run")
    keep_on_disk()
    if COUNT.value < 1:
        raise ConfigError(f"--count {COUNT.value} must be at least 1")
    prompts = read_prompts()
    like = None if EXPERIMENT.value is None else load_experiment(EXPERIMENT.value)
    run = load_run(Path(RUN.value), like=like, embed=open_embedder(EMBED.value))
    start = read_start(run.experiment.vae.temporal)
    settings = {"steps": STEPS.value, "guidance": GUIDANCE.value, "method": METHOD.value}
    sampler = make_sampler(run, **{k: v for k, v in settings.items() if v is not None})
    requests, each = expanded(run, sampler, make_requests(run, prompts, start))
    samples = sampler.generate(requests)
    for prompt in dict.fromkeys(s.request.prompt for s in samples if s.prompt_is_cut):
        print(f"cut to the {sampler.text_length} tokens that the run reads: {prompt}")
    given = {} if start is None else {"given_file": Path(start.path).name}
    provenance = provenance_of(run, sampler) | given
    directory = Path(OUTPUT.value or run.directory / "samples")
    if VBENCH.value:
        paths = write_for_vbench(samples, directory, provenance, each)
        print(f"{len(paths)} videos for VBench: {directory}")
        return
    paths = write_samples(samples, directory, provenance, each)
    print(f"{len(paths)} samples: {paths[0]}{' ...' if len(paths) > 1 else ''}")
    print(f"contact sheet: {directory / 'contact-sheet.png'}")


def read_prompts() -> list[str]:
    """Prompts of the flags, then those of the file; none are needed where frames are given."""
    prompts = list(PROMPT.value)
    if PROMPTS_FILE.value is not None:
        try:
            text = Path(PROMPTS_FILE.value).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read the prompts in {PROMPTS_FILE.value}: {error}"
            ) from error
        prompts += [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts and IMAGE.value is None and VIDEO.value is None:
        raise ConfigError("nothing is asked for: give --prompt, --prompts_file, --image or --video")
    return prompts or [""]


def read_start(temporal: int) -> Start | None:
    """The image, or the last frames of the video, that samples begin with.

    Of a video by default 1 + temporal frames, the fewest that show motion.

    Raises:
        MediaError: the file cannot be read.
        ConfigError: both are given, or the video is too short.
    """
    if IMAGE.value is not None and VIDEO.value is not None:
        raise ConfigError("give one of --image and --video")
    if IMAGE.value is not None:
        return Start(IMAGE.value, read_image(Path(IMAGE.value))[None], None)
    if VIDEO.value is None:
        return None
    wanted = 1 + temporal if GIVEN_FRAMES.value is None else GIVEN_FRAMES.value
    if wanted < 1:
        raise ConfigError(f"--given_frames {wanted} must be at least 1")
    path = Path(VIDEO.value)
    last = collections.deque(read_frames(path), maxlen=wanted)
    if len(last) < wanted:
        raise ConfigError(
            f"{path} has {len(last)} frames and {wanted} are to be given: lower --given_frames"
        )
    return Start(VIDEO.value, np.stack(last), scan_video(path).fps)


def make_requests(run: LoadedRun, prompts: Sequence[str], start: Start | None) -> list[Request]:
    """--count requests for each prompt, all of one size; says what is done to the start."""
    buckets = run.experiment.data.buckets
    frames = _chosen(FRAMES.value, max(bucket.frames for bucket in buckets))
    height, width = default_size(buckets, frames, start)
    height, width = _chosen(HEIGHT.value, height), _chosen(WIDTH.value, width)
    fps = run.experiment.data.fps if start is None or start.fps is None else start.fps
    fps = _chosen(FPS.value, fps)
    if min(height, width) < 1:
        raise ConfigError(f"--height {height} and --width {width} must be positive")
    given = None
    if start is not None:
        given_height, given_width = start.frames.shape[1:3]
        for change in fit_changes(given_height, given_width, (height, width)):
            print(f"{start.path}: {change}")
        given = np.stack([fit(frame, (height, width)) for frame in start.frames])
    return [
        Request(prompt, frames, height, width, fps, SEED.value + number, given)
        for number, prompt in enumerate(prompt for prompt in prompts for _ in range(COUNT.value))
    ]


def expanded(
    run: LoadedRun, sampler: Sampler, requests: list[Request]
) -> tuple[list[Request], list[dict[str, Any]]]:
    """The requests with prompts as --expand makes them, and what the files say of that; prints why
    a prompt stays as it is.

    Raises:
        ConfigError: --expand is neither offline nor an address, or lacks --expand_model.
        ExpansionError: the endpoint fails.
    """
    if EXPAND.value is None:
        return requests, [{} for _ in requests]
    expander = make_expander(EXPAND.value, EXPAND_MODEL.value, run.experiment.world)

    def fits(prompt: str) -> bool:
        return sampler.captions.length(prompt) <= sampler.text_length

    found = [
        expand(request.prompt, request.seed, request.frames == 1, expander, fits)
        for request in requests
    ]
    for prompt, reason in dict.fromkeys((each.before, each.refused) for each in found):
        if reason is not None:
            print(f"not expanded, for {reason}: {prompt}")
    made = [
        dataclasses.replace(request, prompt=each.after)
        for request, each in zip(requests, found, strict=True)
    ]
    return made, [each.as_metadata() for each in found]


def _chosen(value: Number | None, default: Number) -> Number:
    return default if value is None else value


def default_size(buckets: Sequence[Bucket], frames: int, start: Start | None) -> tuple[int, int]:
    """(height, width) trained on for clips as long, or else for the longest: nearest in aspect to
    the start, or the largest."""
    longest = max(bucket.frames for bucket in buckets)
    trained = [b for b in buckets if b.frames == frames] or [
        b for b in buckets if b.frames == longest
    ]
    if start is not None:
        height, width = start.frames.shape[1:3]
        nearest = nearest_size(height, width, trained)
        if nearest is not None:
            return nearest
    largest = max(trained, key=lambda bucket: bucket.height * bucket.width)
    return largest.height, largest.width


if __name__ == "__main__":
    run_command(sys.modules[__name__], sys.argv[1:])
