"""make videos and images from captions with a trained run.

    sora sample --run RUN --prompt "a red circle moves left"      a video
    sora sample --run RUN --prompt "a blue star" --frames 1       an image
    sora sample --run RUN --image FILE --prompt "it moves left"   a video that begins with an image
    sora sample --run RUN --video FILE --frames 13                a video that goes on from another
    sora sample --run RUN --task TASK ...                         every other way of prompting
    sora sample --run RUN --prompt "..." --seconds 60             a minute, window by window

Any size and duration. Writes an MP4 or PNG for each sample, which says all that made it, as does a
JSON beside it, and a contact sheet. --preview 4 makes small ones first, that come out alike, and
--preview_every 5 shows samples on the way. --expand makes long prompts of short ones, by rule for
the procedural world or by a language model, and keeps those that lose no fact.
"""

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

from absl import flags

from sora_jax.cli.expansion import expanded
from sora_jax.cli.long import LongFlags
from sora_jax.cli.main import run as run_command
from sora_jax.cli.previews import small_ones, views, with_likeness
from sora_jax.cli.tasks import TAKES, Asked, make_requests
from sora_jax.config import ConfigError, load_experiment
from sora_jax.diffusion.guidance import GuidanceConfig
from sora_jax.diffusion.sampler import Method
from sora_jax.generator import Generator
from sora_jax.networks import load_run
from sora_jax.provenance import provenance_of
from sora_jax.sample.tasks import BOX_STRENGTH, EDIT_STRENGTH, TURN_STRENGTH
from sora_jax.sample.video_io import write_for_vbench, write_samples
from sora_jax.train.executables import keep_on_disk
from sora_jax.weights.text_encoders import open_embedder

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
TASK = flags.DEFINE_enum(
    "task",
    None,
    list(TAKES),
    "how to prompt (default: by what is given: animate an image, extend a video, or generate)",
    flag_values=FLAGS,
)
IMAGE = flags.DEFINE_multi_string(
    "image", [], "image to begin with; of interpolate and remember several", flag_values=FLAGS
)
VIDEO = flags.DEFINE_multi_string(
    "video",
    [],
    "video to go on from, or to change; of connect and turn_into two",
    flag_values=FLAGS,
)
GIVEN_FRAMES = flags.DEFINE_integer(
    "given_frames",
    None,
    "how many frames of --video are given, and of a window to the next (default: the fewest that "
    "show motion)",
    flag_values=FLAGS,
)
STRENGTH = flags.DEFINE_float(
    "strength",
    None,
    "of edit, edit_box and turn_into: from 0, all stays, to 1, nothing (default: "
    f"{EDIT_STRENGTH}, {BOX_STRENGTH} and {TURN_STRENGTH})",
    flag_values=FLAGS,
)
BOX = flags.DEFINE_list(
    "box", None, "of edit_box: TOP,BOTTOM,LEFT,RIGHT in pixels of the clip", flag_values=FLAGS
)
OUTSIDE = flags.DEFINE_bool(
    "outside", False, "of edit_box: make what is outside the box", flag_values=FLAGS
)
SPAN = flags.DEFINE_list(
    "span", None, "of edit_span: START,END in seconds, of what is made anew", flag_values=FLAGS
)
AT = flags.DEFINE_list(
    "at", [], "of interpolate: time of each --image, in seconds, with commas", flag_values=FLAGS
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
    "how hard to follow the caption or, without one, what is given (default: the experiment's)",
    flag_values=FLAGS,
)
NEGATIVE_PROMPT = flags.DEFINE_string(
    "negative_prompt", "", "what not to show: guidance pushes away from it", flag_values=FLAGS
)
HISTORY_GUIDANCE = flags.DEFINE_float(
    "history_guidance",
    None,
    "how hard to follow the frames of --image or --video (default: the experiment's, or 1: as "
    "learned)",
    flag_values=FLAGS,
)
GUIDANCE_INTERVAL = flags.DEFINE_list(
    "guidance_interval",
    None,
    "LOW,HIGH: noise levels, of 0 to 1, that are guided (default: the experiment's, or all)",
    flag_values=FLAGS,
)
GUIDANCE_RESCALE = flags.DEFINE_float(
    "guidance_rescale",
    None,
    "how far, 0 to 1, contrast is kept from growing with guidance (default: the experiment's, or "
    "0)",
    flag_values=FLAGS,
)
PROJECTED = flags.DEFINE_bool(
    "projected",
    None,
    "whether guidance leaves out what saturates colours (default: the experiment's, or not)",
    flag_values=FLAGS,
)
METHOD = flags.DEFINE_enum(
    "method", None, get_args(Method), "sampler (default: the experiment's)", flag_values=FLAGS
)
PREVIEW = flags.DEFINE_float(
    "preview",
    None,
    "make small clips first, with sides smaller by this factor, into the folder previews, and say "
    "how alike the large ones came out",
    flag_values=FLAGS,
)
PREVIEW_ONLY = flags.DEFINE_bool(
    "preview_only", False, "make no more than what --preview makes", flag_values=FLAGS
)
PREVIEW_EVERY = flags.DEFINE_integer(
    "preview_every",
    None,
    "write a strip of frames of each clip as it is predicted, after every so many steps",
    flag_values=FLAGS,
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
LONG = LongFlags(FLAGS)


def main(argv: Sequence[str]) -> None:
    """Samples, writes, and says where."""
    if RUN.value is None:
        raise ConfigError("sora sample needs --run, the directory of a trained run")
    keep_on_disk()
    if COUNT.value < 1:
        raise ConfigError(f"--count {COUNT.value} must be at least 1")
    if PREVIEW_ONLY.value and PREVIEW.value is None:
        raise ConfigError("--preview_only needs --preview, by how much smaller to make the clips")
    beside = (PREVIEW.value, PREVIEW_EVERY.value) != (None, None)
    if VBENCH.value and beside:
        raise ConfigError("--vbench writes nothing beside: leave --preview and --preview_every out")
    if LONG.are_given and (VBENCH.value or beside):
        raise ConfigError(
            "--vbench and previews are of clips of one window: leave out --seconds and --window"
        )
    prompts, asked = read_prompts(), LONG.of_window(read_asked())
    like = None if EXPERIMENT.value is None else load_experiment(EXPERIMENT.value)
    run = load_run(Path(RUN.value), like=like, embed=open_embedder(EMBED.value))
    guidance = asked_guidance(run.experiment.sampling.guidance)
    settings = {"steps": STEPS.value, "guidance": guidance, "method": METHOD.value}
    generator = Generator(run, **{k: v for k, v in settings.items() if v is not None})
    sampler = generator.sampler
    requests = [
        dataclasses.replace(
            request, seed=SEED.value + number, negative_prompt=NEGATIVE_PROMPT.value
        )
        for number, request in enumerate(make_requests(generator, asked, prompts))
    ]
    told = expanded(run, sampler, requests, LONG.story, EXPAND.value, EXPAND_MODEL.value)
    requests, each = [one.request for one in told], [one.said for one in told]
    directory = Path(OUTPUT.value or run.directory / "samples")
    files = [Path(path).name for path in (*IMAGE.value, *VIDEO.value)]
    provenance = provenance_of(run, sampler) | {"given_files": files}
    if LONG.are_given:
        LONG.write(generator, told, GIVEN_FRAMES.value, FRAMES.value, directory, provenance)
        return
    small = None
    if PREVIEW.value is not None:
        how = (PREVIEW.value, directory, provenance, each)
        small = small_ones(generator, requests, *how)
        if PREVIEW_ONLY.value:
            return
    samples = sampler.generate(requests, views(directory, requests, each, PREVIEW_EVERY.value))
    if small is not None:
        each = with_likeness(generator, small, samples, each)
    for prompt in dict.fromkeys(s.request.prompt for s in samples if s.prompt_is_cut):
        print(f"cut to the {sampler.text_length} tokens that the run reads: {prompt}")
    if VBENCH.value:
        paths = write_for_vbench(samples, directory, provenance, each)
        print(f"{len(paths)} videos for VBench: {directory}")
        return
    paths = write_samples(samples, directory, provenance, each)
    print(f"{len(paths)} samples: {paths[0]}{' ...' if len(paths) > 1 else ''}")
    print(f"contact sheet: {directory / 'contact-sheet.png'}")


def read_prompts() -> list[str]:
    """Prompts of the flags, then those of the file, each as often as it is to be sampled; none are
    needed where frames are given."""
    prompts = list(PROMPT.value)
    if PROMPTS_FILE.value is not None:
        try:
            text = Path(PROMPTS_FILE.value).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(
                f"cannot read the prompts in {PROMPTS_FILE.value}: {error}"
            ) from error
        prompts += [line.strip() for line in text.splitlines() if line.strip()]
    if not prompts and not IMAGE.value and not VIDEO.value:
        raise ConfigError("nothing is asked for: give --prompt, --prompts_file, --image or --video")
    return [prompt for prompt in prompts or [""] for _ in range(COUNT.value)]


def read_asked() -> Asked:
    """The flags that are about the clip.

    Raises:
        ConfigError: one is not as many numbers as it should be.
    """
    box, span = _numbers("box", BOX.value, 4), _numbers("span", SPAN.value, 2)
    at = _numbers("at", AT.value, len(AT.value)) or ()
    top, bottom, left, right = (round(side) for side in box or (0, 0, 0, 0))
    return Asked(
        task=TASK.value,
        images=IMAGE.value,
        videos=VIDEO.value,
        context=GIVEN_FRAMES.value,
        strength=STRENGTH.value,
        box=None if box is None else (top, bottom, left, right),
        is_outside=OUTSIDE.value,
        span=None if span is None else (span[0], span[1]),
        at=at,
        frames=FRAMES.value,
        height=HEIGHT.value,
        width=WIDTH.value,
        fps=FPS.value,
    )


def _numbers(flag: str, words: Sequence[str] | None, count: int) -> tuple[float, ...] | None:
    if words is None:
        return None
    try:
        numbers = tuple(map(float, words))
    except ValueError:
        numbers = ()
    if len(numbers) != count:
        raise ConfigError(f"--{flag} {','.join(words)} is not {count} numbers with commas")
    return numbers


def asked_guidance(trained: float | GuidanceConfig) -> float | GuidanceConfig:
    """The experiment's guidance with what flags change of it.

    Raises:
        ConfigError: a flag has no meaning, or would change nothing.
    """
    changes: dict[str, Any] = {
        "scale": GUIDANCE.value,
        "history": HISTORY_GUIDANCE.value,
        "interval": _numbers("guidance_interval", GUIDANCE_INTERVAL.value, 2),
        "rescale": GUIDANCE_RESCALE.value,
        "parallel": None if PROJECTED.value is None else 1.0 - PROJECTED.value,
    }
    guidance = trained if isinstance(trained, GuidanceConfig) else GuidanceConfig(trained)
    changes = {name: value for name, value in changes.items() if value is not None}
    guidance = dataclasses.replace(guidance, **changes)
    if NEGATIVE_PROMPT.value and guidance.scale == 1:
        raise ConfigError("--negative_prompt changes nothing at a guidance of 1: raise --guidance")
    given = IMAGE.value or VIDEO.value or LONG.are_given
    if HISTORY_GUIDANCE.value is not None and not given:
        raise ConfigError("--history_guidance is of given frames: give --image or --video")
    return guidance.scale if guidance == GuidanceConfig(guidance.scale) else guidance


if __name__ == "__main__":
    run_command(sys.modules[__name__], sys.argv[1:])
