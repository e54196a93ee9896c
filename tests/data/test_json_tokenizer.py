"""A tokenizer.json is used like a SentencePiece model, and pads and ends where T5 does."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from sora_jax.data.json_tokenizer import JsonTokenizer
from sora_jax.data.schema import DataError

PIECES = ("<pad>", "</s>", "<unk>", "a", "red", "circle")


def content(pieces: tuple[str, ...] = PIECES) -> bytes:
    made = Tokenizer(models.WordLevel({p: n for n, p in enumerate(pieces)}, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    # As T5's has it, which also marks the end.
    made.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", pieces.index("</s>"))]
    )
    made.enable_truncation(2)
    return made.to_str().encode()


def test_captions_end_once_and_are_padded_or_cut() -> None:
    tokens = JsonTokenizer(content())
    ids = tokens.encode(["a red circle", "", "a red blue circle"], 4)
    np.testing.assert_array_equal(ids, [[3, 4, 5, 1], [1, 0, 0, 0], [3, 4, 2, 1]])
    assert [tokens.length(caption) for caption in ("a red circle", "")] == [4, 1]
    assert tokens.decode(ids[0]) == "a red circle"
    assert tokens.vocabulary_size == 6


def test_other_files_are_told() -> None:
    with pytest.raises(DataError, match="not a tokenizer.json"):
        JsonTokenizer(b"{}")
    with pytest.raises(DataError, match=r"has ids \(1, 0\) for padding and end, not \(0, 1\)"):
        JsonTokenizer(content(("</s>", *PIECES[:1], *PIECES[2:])))
