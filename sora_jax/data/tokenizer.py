"""Captions -> token ids: a SentencePiece model trained on the captions of a set.

Byte-pair merges, not the unigram model: on a small closed vocabulary the unigram trainer, which
seeds its pieces from substrings that several distinct words share, never learns whole words.
"""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import sentencepiece
from jaxtyping import Int32

from sora_jax.data.schema import DataError

PAD, END, UNKNOWN = 0, 1, 2
# More text teaches a vocabulary of this kind nothing and takes memory.
MAX_TRAINING_CAPTIONS = 200_000


class Tokenizer:
    """Encodes captions. The model is bytes, so that it travels inside sets and checkpoints."""

    def __init__(self, model: bytes) -> None:
        """Raises DataError if the bytes are not a SentencePiece model whose padding and end are
        ours. The unknown may be any piece: other projects' models have it elsewhere."""
        self.model = model
        try:
            self._processor = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise DataError(f"not a SentencePiece model: {error}") from error
        ids = (self._processor.pad_id(), self._processor.eos_id())
        if ids != (PAD, END):
            raise DataError(f"tokenizer has ids {ids} for padding and end, not {(PAD, END)}")

    @classmethod
    def load(cls, path: Path) -> "Tokenizer":
        return cls(path.read_bytes())

    @classmethod
    def train(cls, captions: Iterable[str], vocabulary_size: int) -> "Tokenizer":
        """Trains on captions; the same captions in the same order give the same bytes.

        Args:
            captions: the first 200,000 are used.
            vocabulary_size: upper limit; a small corpus supports fewer pieces.

        Raises:
            DataError: there is no text, or it has more characters than the vocabulary.
        """
        corpus = [c for c, _ in zip(captions, range(MAX_TRAINING_CAPTIONS), strict=False)]
        if not any(caption.strip() for caption in corpus):
            raise DataError("no captions to train a tokenizer on")
        output = io.BytesIO()
        try:
            sentencepiece.SentencePieceTrainer.train(
                sentence_iterator=iter(corpus),
                model_writer=output,
                model_type="bpe",
                vocab_size=vocabulary_size,
                hard_vocab_limit=False,
                character_coverage=0.9995,
                normalization_rule_name="nmt_nfkc_cf",  # prompts in capitals read the same
                pad_id=PAD,
                eos_id=END,
                unk_id=UNKNOWN,
                bos_id=-1,
                num_threads=1,  # sums in one order: the same bytes every time
                minloglevel=2,
            )
        except RuntimeError as error:
            raise DataError(
                f"no tokenizer of {vocabulary_size} pieces for these captions: {error}"
            ) from error
        return cls(output.getvalue())

    @property
    def vocabulary_size(self) -> int:
        return int(self._processor.get_piece_size())

    def length(self, caption: str) -> int:
        """Tokens of the whole caption, end mark included."""
        return len(self._processor.encode(caption)) + 1

    def encode(self, captions: Sequence[str], length: int) -> Int32[np.ndarray, "b l"]:
        """Token ids, an end mark after the last, then padding; longer captions are cut.

        An empty caption is the end mark alone.
        """
        # By default a batch starts threads that cost more than its captions do.
        return ended(self._processor.encode(list(captions), num_threads=1), length)

    def decode(self, ids: Int32[np.ndarray, " l"]) -> str:
        return str(self._processor.decode([int(i) for i in ids if i not in (PAD, END)]))


def ended(captions: Sequence[Sequence[int]], length: int) -> Int32[np.ndarray, "b l"]:
    """Ids of pieces of captions as rows: cut, an end mark after the last, then padding."""
    ids = np.full((len(captions), length), PAD, np.int32)
    for row, pieces in zip(ids, captions, strict=True):
        kept = pieces[: length - 1]
        row[: len(kept) + 1] = [*kept, END]
    return ids
