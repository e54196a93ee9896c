"""Tokenizer: whole words from few captions, end marks, padding, and equal bytes every time."""

from pathlib import Path

import numpy as np
import pytest

from sora_jax.data.schema import DataError
from sora_jax.data.tokenizer import END, PAD, UNKNOWN, Tokenizer

CAPTIONS = [
    f"a {size} {colour} {shape} moves {direction}"
    for size in ("small", "large")
    for colour in ("red", "green", "blue")
    for shape in ("circle", "square", "star")
    for direction in ("left", "right", "up")
]


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(CAPTIONS, 512)


def test_a_word_of_a_closed_vocabulary_is_one_token(tokenizer: Tokenizer) -> None:
    for caption in CAPTIONS:
        assert tokenizer.length(caption) == len(caption.split()) + 1
    assert tokenizer.vocabulary_size <= 512


def test_captions_end_and_are_padded_or_cut(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode([CAPTIONS[0], "", CAPTIONS[0] + " and a red star"], 8)
    assert ids.dtype == np.int32
    assert ids.shape == (3, 8)
    assert ids[0, 6] == END
    assert list(ids[0, 7:]) == [PAD]
    assert list(ids[1]) == [END] + [PAD] * 7
    assert ids[2, 7] == END
    assert PAD not in ids[2]
    assert tokenizer.decode(ids[0]) == CAPTIONS[0]


def test_capitals_and_spaces_do_not_matter_and_unknown_words_do_not_fail(
    tokenizer: Tokenizer,
) -> None:
    plain, odd, unknown = tokenizer.encode(["a red star", "  A Red  STAR ", "日本"], 12)
    assert np.array_equal(plain, odd)
    assert UNKNOWN in unknown


def test_training_twice_gives_the_same_bytes(tokenizer: Tokenizer) -> None:
    assert Tokenizer.train(iter(CAPTIONS), 512).model == tokenizer.model


def test_the_model_travels_as_bytes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    (tmp_path / "model").write_bytes(tokenizer.model)
    loaded = Tokenizer.load(tmp_path / "model")
    assert np.array_equal(loaded.encode(CAPTIONS, 12), tokenizer.encode(CAPTIONS, 12))


def test_one_caption_is_enough_and_none_is_not() -> None:
    assert (
        Tokenizer.train(["a cat"], 512).decode(
            Tokenizer.train(["a cat"], 512).encode(["a cat"], 8)[0]
        )
        == "a cat"
    )
    with pytest.raises(DataError, match="no captions"):
        Tokenizer.train(["", " "], 512)


def test_a_vocabulary_below_the_alphabet_is_refused() -> None:
    with pytest.raises(DataError, match="no tokenizer of 8 pieces"):
        Tokenizer.train(["abcdefghijklmnop"], 8)


def test_other_bytes_are_refused() -> None:
    with pytest.raises(DataError, match="not a SentencePiece model"):
        Tokenizer(b"hello")
