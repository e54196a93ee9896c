"""Captions -> token ids by another project's tokenizer.json, where it comes without a SentencePiece
model; used like a Tokenizer."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int32

from sora_jax.data.schema import DataError
from sora_jax.data.tokenizer import END, PAD, ended

PAD_TOKEN, END_TOKEN = "<pad>", "</s>"


class JsonTokenizer:
    """Encodes captions. The model is the bytes of the file."""

    def __init__(self, model: bytes) -> None:
        """Raises DataError if the bytes are no tokenizer whose padding and end are ours, or the
        library is missing that reads them."""
        try:
            from tokenizers import Tokenizer
        except ImportError as error:
            raise DataError(
                'tokenizer.json needs a library: pip install "sora_jax[eval]", or give a folder '
                "with spiece.model"
            ) from error
        self.model = model
        try:
            self._tokenizer = Tokenizer.from_buffer(model)
        except Exception as error:  # the library raises no other
            raise DataError(f"not a tokenizer.json: {error}") from error
        ids = tuple(self._tokenizer.token_to_id(token) for token in (PAD_TOKEN, END_TOKEN))
        if ids != (PAD, END):
            raise DataError(f"tokenizer has ids {ids} for padding and end, not {(PAD, END)}")
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    @property
    def vocabulary_size(self) -> int:
        return int(self._tokenizer.get_vocab_size())

    def length(self, caption: str) -> int:
        """Tokens of the whole caption, end mark included."""
        return len(self._pieces([caption])[0]) + 1

    def encode(self, captions: Sequence[str], length: int) -> Int32[np.ndarray, "b l"]:
        """As of a Tokenizer."""
        return ended(self._pieces(captions), length)

    def decode(self, ids: Int32[np.ndarray, " l"]) -> str:
        return str(self._tokenizer.decode([int(i) for i in ids if i not in (PAD, END)]))

    def _pieces(self, captions: Sequence[str]) -> list[list[int]]:
        encoded = self._tokenizer.encode_batch(list(captions), add_special_tokens=False)
        return [each.ids for each in encoded]
