"""bring in another project's weights, checked, as a folder of ours.

    sora import t5 DIR --output OUT      the encoder of T5 v1.1
    sora import umt5 DIR --output OUT    that of umT5
    sora import wan DIR --output RUN --experiment NAME    the autoencoder of Wan 2.1

DIR of a text encoder has config.json, safetensors (one file, or several and an index) and
spiece.model or tokenizer.json, as Hugging Face lays them; a decoder is left out. Names, shapes and
numbers are all checked, and OUT is made whole or not at all. It is then what `sora encode`,
`train`, `sample` and `evaluate` take for --embed, split over any mesh.

DIR of wan has Wan2.1_VAE.pth, or config.json and safetensors as the folder vae of a model for
diffusers. RUN is then a run of the experiment, for `sora train --stage dit --workdir RUN`.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from sora_jax.cli.main import run
from sora_jax.config import ConfigError, load_experiment
from sora_jax.errors import UserError, nearest
from sora_jax.files import local_path

FLAGS = flags.FlagValues()
EXPERIMENT = flags.DEFINE_string(
    "experiment", None, "what an autoencoder becomes a run of", flag_values=FLAGS
)
SET = flags.DEFINE_multi_string("set", [], "field=value of the experiment", flag_values=FLAGS)
OUTPUT = flags.DEFINE_string("output", None, "folder to make", flag_values=FLAGS)
DTYPE = flags.DEFINE_enum(
    "dtype",
    "bfloat16",
    ["bfloat16", "float32"],
    "what a text encoder keeps its matrices in, and computes in",
    flag_values=FLAGS,
)
TOKENIZER = flags.DEFINE_string(
    "tokenizer", None, "folder with a text encoder's tokenizer (default: DIR)", flag_values=FLAGS
)


def _text_encoder(kind: Any, source: Path, output: Path) -> str:
    from sora_jax.weights.t5 import import_encoder

    tokenizer = local_path(TOKENIZER.value) if TOKENIZER.value else source
    dtype: Any = DTYPE.value
    return import_encoder(kind, source, output, dtype, tokenizer)


def _wan(source: Path, output: Path) -> str:
    from sora_jax.imported import import_wan_vae

    if EXPERIMENT.value is None:
        raise ConfigError("sora import wan needs --experiment")
    return import_wan_vae(source, output, load_experiment(EXPERIMENT.value, SET.value))


# Of each kind what makes one folder of another, and tells of it in a line.
IMPORTERS: dict[str, Callable[[Path, Path], str]] = {
    "t5": functools.partial(_text_encoder, "t5"),
    "umt5": functools.partial(_text_encoder, "umt5"),
    "wan": _wan,
}


def main(argv: Sequence[str]) -> None:
    """Imports one folder."""
    kinds = ", ".join(IMPORTERS)
    if len(argv) != 3 or OUTPUT.value is None:
        raise ConfigError(f"sora import needs a kind ({kinds}), a folder, and --output")
    _, kind, source = argv
    if kind not in IMPORTERS:
        hint = nearest(kind, IMPORTERS) or f"; there are: {kinds}"
        raise ConfigError(f"there is no import of '{kind}'{hint}")
    try:
        print(IMPORTERS[kind](local_path(source), local_path(OUTPUT.value)))
    except ModuleNotFoundError as error:
        if error.name not in ("safetensors", "tokenizers"):
            raise
        raise UserError(f'sora import needs {error.name}: pip install "sora_jax[eval]"') from error


if __name__ == "__main__":
    run(sys.modules[__name__], sys.argv[1:])
