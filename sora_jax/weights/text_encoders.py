"""Text encoders that `sora import` brought in: a folder of them, and what makes embeddings by it.

A folder holds

    config.json                          sizes, id, and a checksum of every array
    weights/                             arrays as Orbax writes them, read straight into shardings
    tokenizer.model or tokenizer.json    of the captions
"""

import dataclasses
import functools
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.sharding import Mesh
from jaxtyping import Int32

from sora_jax.checkpoints import named, unnamed
from sora_jax.config import from_dict
from sora_jax.data.captions import BFLOAT16, TextEmbedder, make_embedder
from sora_jax.data.json_tokenizer import JsonTokenizer
from sora_jax.data.tokenizer import Tokenizer
from sora_jax.errors import UserError
from sora_jax.files import write_json
from sora_jax.models.t5 import T5Config, T5Encoder, abstract_encoder
from sora_jax.saved_arrays import array_handler, as_saved, read_arrays, read_metadata
from sora_jax.sharding.checksums import checksums
from sora_jax.sharding.mesh import MeshConfig, make_mesh
from sora_jax.sharding.rules import mesh_of, replicated
from sora_jax.types import Text

CONFIG_FILE, WEIGHTS = "config.json", "weights"
TOKENIZERS: dict[str, type[Tokenizer] | type[JsonTokenizer]] = {
    "tokenizer.model": Tokenizer,
    "tokenizer.json": JsonTokenizer,
}
MAX_TOKENS = 512  # of a caption, which is what T5 was trained on
ROWS = 16  # of a batch of captions
SHORTEST = 16  # tokens of a batch of captions; longer ones are of twice as many, and so on


def save_encoder(
    output: Path,
    encoder_id: str,
    config: T5Config,
    arrays: dict[str, jax.Array],
    tokenizer: Tokenizer | JsonTokenizer,
) -> None:
    """Writes an encoder's arrays, by name, and what belongs to them, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    content = {
        "id": encoder_id,
        "encoder": dataclasses.asdict(config),
        "checksums": checksums(arrays),
    }
    [file] = [name for name, kind in TOKENIZERS.items() if type(tokenizer) is kind]
    partial = output.with_name(f".{output.name}.partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        checkpointer = ocp.Checkpointer(array_handler())
        checkpointer.save(epath.Path(partial.absolute() / WEIGHTS), args=as_saved(arrays))
        checkpointer.close()
        (partial / file).write_bytes(tokenizer.model)
        write_json(partial / CONFIG_FILE, content)
        os.rename(partial, output)
    except (OSError, ValueError) as error:  # the latter is TensorStore's of a full disk
        raise UserError(f"cannot write {output}: {getattr(error, 'strerror', error)}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)


class ImportedEncoder:
    """A TextEmbedder by an encoder in a folder; its weights are read when they are first needed.

    Captions are embedded on this process's devices, each beside others of about its length, so
    that there are few programs, and a caption's numbers do not depend on its company.
    """

    def __init__(self, directory: Path) -> None:
        """Raises UserError if the folder is none that `save_encoder` made."""
        self.directory = directory
        try:
            content = json.loads((directory / CONFIG_FILE).read_bytes())
            self.id: str = content["id"]
            self.config: T5Config = from_dict(T5Config, content["encoder"])
            self._checksums: dict[str, int] = content["checksums"]
            [file] = [name for name in TOKENIZERS if (directory / name).is_file()]
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise UserError(
                f"{directory} is no encoder that `sora import` made: import it again"
            ) from error
        self.tokenizer = TOKENIZERS[file]((directory / file).read_bytes())
        self.width = self.config.width
        self._here: T5Encoder | None = None

    def restore(self, mesh: Mesh) -> T5Encoder:
        """The encoder, split over a mesh; all processes of the mesh call it.

        Raises:
            UserError: the weights are not what was imported.
        """
        path = epath.Path(self.directory.absolute() / WEIGHTS)
        abstract = abstract_encoder(self.config, mesh)
        try:
            arrays = read_arrays(path, read_metadata(path), named(abstract))
            damaged = checksums(arrays) != self._checksums
        except Exception as error:  # Orbax raises plain Exception for an array cut short
            raise UserError(f"{path} cannot be read: import the encoder again") from error
        if damaged:
            raise UserError(f"{path} is not what was imported: import the encoder again")
        encoder: T5Encoder = unnamed(arrays, abstract)
        if jax.process_count() == 1:
            self._here = encoder  # in memory once
        return encoder

    def here(self) -> T5Encoder:
        """The encoder on this process's devices, or where one process restored it."""
        if self._here is None:  # processes embed captions of their own, and wait for no other
            self._here = self.restore(make_mesh(MeshConfig(), jax.local_devices()))
        return self._here

    def __call__(self, captions: Sequence[str]) -> list[np.ndarray]:
        """Embeddings [l, width] of captions, of which the longest are cut to MAX_TOKENS."""
        lengths = [min(self.tokenizer.length(caption), MAX_TOKENS) for caption in captions]
        padded = [max(SHORTEST, 1 << (length - 1).bit_length()) for length in lengths]
        found: dict[int, np.ndarray] = {}
        for size in sorted(set(padded)):
            alike = [place for place, each in enumerate(padded) if each == size]
            for first in range(0, len(alike), ROWS):
                places = alike[first : first + ROWS]
                ids = np.zeros((ROWS, size), np.int32)
                ids[: len(places)] = self.tokenizer.encode([captions[i] for i in places], size)
                rows = np.asarray(_encoded(self.here(), ids).embeddings)[: len(places)]
                for place, row in zip(places, rows, strict=True):
                    found[place] = row[: lengths[place]]
        return [found[place] for place in range(len(captions))]


class EncodedCaptions:
    """Takes a tokenizer's place where the network reads what an imported encoder makes: captions
    are cut to so many tokens, as those of batches that are embedded in the step."""

    def __init__(self, imported: ImportedEncoder, encoder: T5Encoder) -> None:
        """`encoder`: of `imported`, over a mesh all of whose processes ask for the same."""
        self._tokenizer, self._encoder = imported.tokenizer, encoder

    def encode(self, captions: Sequence[str], length: int) -> Text:
        """Embeddings [b, length, d] of captions, in bfloat16."""
        text = _encoded(self._encoder, self._tokenizer.encode(captions, length))
        rows: Any = np.asarray(text.embeddings, BFLOAT16)
        segments: Any = np.asarray(text.segments)
        return Text(rows, segments)

    def length(self, caption: str) -> int:
        """Tokens of the whole caption, end mark included."""
        return self._tokenizer.length(caption)


def _encoded(encoder: T5Encoder, ids: Int32[np.ndarray, "b l"]) -> Text:
    """Of the same ids on all processes of the encoder's mesh, whole on each of its devices."""
    mesh = mesh_of(encoder)
    with jax.set_mesh(mesh):
        text: Text = _program(mesh)(encoder, jax.device_put(ids, replicated(mesh)))
    return text


@functools.lru_cache
def _program(mesh: Mesh) -> Any:
    return jax.jit(lambda encoder, ids: encoder(ids), out_shardings=replicated(mesh))


def open_embedder(place: str | None) -> TextEmbedder | None:
    """What `--embed` names: a folder that `sora import` made, or MODULE:FUNCTION; None of None.

    Raises:
        ConfigError: it is neither, as of `make_embedder`.
        UserError: the folder is no imported encoder.
    """
    if place is not None and Path(place).is_dir():
        return ImportedEncoder(Path(place))
    return make_embedder(place)
