"""write the latents of a set, to train on in place of its clips.

    sora encode --workdir runs/mine --data SET --output LATENTS [--embed OUT]

The run's trained autoencoder encodes every clip once, and LATENTS is a set of the same clips, in
the same order, for `sora train --stage dit --data LATENTS` of any run with that autoencoder. Clips
that cannot be read or decoded are left out, and stand in its ledger. On several hosts every host is
given the same command, and sees the same LATENTS. A job that was stopped goes on where it was when
the command is given again, on as many hosts or others. With --embed captions are embedded too, for
experiments with text.source=given: by an encoder that `sora import` made, or by what a function
makes, MODULE:FUNCTION; data/captions.py says what that is.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from sora_jax.cli.main import run
from sora_jax.config import ConfigError, override
from sora_jax.data.sources import ClipSet
from sora_jax.encoded import encode_set
from sora_jax.networks import experiment_of, load_vae
from sora_jax.processes import join
from sora_jax.sharding.mesh import make_mesh
from sora_jax.train.executables import keep_on_disk
from sora_jax.weights.text_encoders import open_embedder

FLAGS = flags.FlagValues()
WORKDIR = flags.DEFINE_string(
    "workdir", None, "directory of a run with a trained autoencoder", flag_values=FLAGS
)
DATA = flags.DEFINE_string("data", None, "directory of the set of clips", flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", None, "directory of the latents", flag_values=FLAGS)
EMBED = flags.DEFINE_string(
    "embed",
    None,
    "folder that `sora import` made, or MODULE:FUNCTION that makes a TextEmbedder, to embed the "
    "captions too",
    flag_values=FLAGS,
)
SET = flags.DEFINE_multi_string(
    "set", [], "compute in another way than the run: --set mesh.fsdp=8", flag_values=FLAGS
)


def main(argv: Sequence[str]) -> None:
    """Encodes one set."""
    if WORKDIR.value is None or DATA.value is None or OUTPUT.value is None:
        raise ConfigError("sora encode needs --workdir, --data and --output")
    join()
    embed = open_embedder(EMBED.value)
    keep_on_disk()
    directory, output = Path(WORKDIR.value), Path(OUTPUT.value)
    experiment = override(experiment_of(directory), *SET.value)
    mesh = make_mesh(experiment.mesh)
    vae, _, step = load_vae(experiment, directory, mesh)
    print(f"autoencoder of {directory}, step {step}, averaged", flush=True)
    clips = ClipSet(DATA.value)
    manifest = encode_set(experiment, clips, output, mesh, vae, embed)
    for bucket in manifest.shards:
        records = manifest.records(bucket)
        left_out = clips.manifest.records(bucket) - records
        print(f"{bucket:14} {records:8} clips" + f", {left_out} bad left out" * bool(left_out))
    print(f"{output}: {manifest.latents}")


if __name__ == "__main__":
    run(sys.modules[__name__], sys.argv[1:])
