"""Captions as embeddings that a fixed model makes: what that is, and rows of them filled up."""

import importlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import ml_dtypes
import numpy as np

from sora_jax.data.json_tokenizer import JsonTokenizer
from sora_jax.data.tokenizer import Tokenizer
from sora_jax.errors import ConfigError
from sora_jax.types import Text

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


class TextEmbedder(Protocol):
    """Embeds captions as a fixed model does, also the empty one: [l, width] of each, l at least 1.

    `id` names the model and all that decides what it makes; sets and runs keep it.
    """

    id: str
    width: int

    def __call__(self, captions: Sequence[str]) -> Sequence[np.ndarray]: ...


class TokenEmbedder(TextEmbedder, Protocol):
    """One that makes token ids of captions first: batches may bring these, to embed on devices."""

    tokenizer: Tokenizer | JsonTokenizer


def make_embedder(place: str | None) -> TextEmbedder | None:
    """What the function at MODULE:FUNCTION makes; None of None.

    Raises:
        ConfigError: there is no such function, or what it makes is no embedder.
    """
    if place is None:
        return None
    module, _, function = place.partition(":")
    try:
        made: TextEmbedder = getattr(importlib.import_module(module), function)()
        _ = made.id, made.width
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"--embed {place!r} makes no embedder ({error}): give MODULE:FUNCTION, a function "
            "without arguments of a module that Python finds, or a folder that `sora import` made"
        ) from error
    return made


class EmbeddedCaptions:
    """Takes a tokenizer's place where the network reads embeddings."""

    def __init__(self, embed: Callable[[Sequence[str]], Sequence[np.ndarray]]) -> None:
        self._embed = embed

    def encode(self, captions: Sequence[str], length: int) -> Text:
        """Embeddings [b, length, d] of captions; longer ones are cut."""
        return filled_up(self._embed(captions), length)

    def length(self, caption: str) -> int:
        """Tokens of a caption, however many are read."""
        return len(self._embed([caption])[0])


def filled_up(texts: Sequence[np.ndarray], length: int) -> Text:
    """Embeddings [l, d] of captions as rows of `length`, in bfloat16; segment 0 is padding."""
    rows: Any = np.zeros((len(texts), length, texts[0].shape[-1]), BFLOAT16)
    segments: Any = np.zeros((len(texts), length), np.int32)
    for row, text in enumerate(texts):
        kept = min(len(text), length)
        rows[row, :kept], segments[row, :kept] = text[:kept], 1
    return Text(rows, segments)
