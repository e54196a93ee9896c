"""put a video through the autoencoder of a run, a few frames at a time.

    sora vae encode in.mp4 --run RUN --output LATENTS     a video's latents, in a directory
    sora vae decode LATENTS --run RUN --output out.mp4    and back

Memory does not grow with the duration, and pictures are split over the devices. A job that was
stopped goes on where it was when the command is given again. On several hosts every host is given
the same command, and sees the same files. Any size and number of frames goes: what is repeated to
fill them up is printed, and cut again in decoding. Grey, transparent and finer than 8 bits are made
RGB of 8 bits, which is printed too; sound is left out.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from sora_jax.cli.main import run as run_command
from sora_jax.config import ConfigError, override
from sora_jax.files import local_path
from sora_jax.networks import experiment_of, load_vae
from sora_jax.processes import is_first, join
from sora_jax.sharding.mesh import make_mesh
from sora_jax.train.executables import keep_on_disk
from sora_jax.vae_files import Coder, decode_file, encode_file

FLAGS = flags.FlagValues()
RUN = flags.DEFINE_string(
    "run", None, "directory of a run with a trained autoencoder", flag_values=FLAGS
)
OUTPUT = flags.DEFINE_string(
    "output", None, "of encode a directory of latents, of decode an .mp4", flag_values=FLAGS
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
        case _:
            raise ConfigError(
                f"'sora vae {' '.join(words)}' is not understood: give encode VIDEO or "
                "decode LATENTS"
            )


def _coder() -> Coder:
    if RUN.value is None or OUTPUT.value is None:
        raise ConfigError("sora vae needs --run, a run with a trained autoencoder, and --output")
    join()
    keep_on_disk()
    directory = Path(RUN.value)
    experiment = override(experiment_of(directory), *SET.value)
    mesh = make_mesh(experiment.mesh)
    vae, statistics, step = load_vae(experiment, directory, mesh)
    if is_first():
        print(f"autoencoder of {directory}, step {step}, averaged", flush=True)
    return Coder(vae, statistics, mesh, experiment.sampling.chunk)


if __name__ == "__main__":
    run_command(sys.modules[__name__], sys.argv[1:])
