"""Folders of a T5 v1.1 and a umT5 of a few thousand parameters, made by a fixed rule, as Hugging
Face lays them.

Needs neither JAX nor the package, so that other implementations can be given the same folders.
"""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

VOCABULARY, WIDTH, DEPTH, HEADS, HEAD_WIDTH, HIDDEN = 64, 24, 3, 3, 6, 40
LENGTHS = (150, 1, 40, 7)  # of the captions of `ids`; farther apart than 128 is one distance
PLACES = ((0, 20, 75, 149), (0,), (0, 19, 39), (0, 3, 6))  # whose embeddings are golden
WORDS = ("a", "small", "large", "red", "green", "blue", "circle", "square", "star", "moves", "left")


def config(kind: str) -> dict[str, Any]:
    return {
        "model_type": kind,
        "architectures": ["T5EncoderModel" if kind == "t5" else "UMT5EncoderModel"],
        "vocab_size": VOCABULARY,
        "d_model": WIDTH,
        "num_layers": DEPTH,
        "num_heads": HEADS,
        "d_kv": HEAD_WIDTH,
        "d_ff": HIDDEN,
        "feed_forward_proj": "gated-gelu",
        "layer_norm_epsilon": 1e-6,
        "relative_attention_num_buckets": 32,
        "relative_attention_max_distance": 128,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "tie_word_embeddings": False,
    }


def shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """Written out from the published files, not from the code that is tested."""
    inner = HEADS * HEAD_WIDTH
    found: dict[str, tuple[int, ...]] = {"shared.weight": (VOCABULARY, WIDTH)}
    for block in (f"encoder.block.{number}.layer" for number in range(DEPTH)):
        attention = f"{block}.0.SelfAttention"
        found |= {f"{attention}.{part}.weight": (inner, WIDTH) for part in "qkv"}
        found[f"{attention}.o.weight"] = (WIDTH, inner)
        if kind == "umt5" or block.startswith("encoder.block.0."):
            found[f"{attention}.relative_attention_bias.weight"] = (32, HEADS)
        found |= {f"{block}.1.DenseReluDense.wi_{n}.weight": (HIDDEN, WIDTH) for n in (0, 1)}
        found[f"{block}.1.DenseReluDense.wo.weight"] = (WIDTH, HIDDEN)
        found |= {f"{block}.{part}.layer_norm.weight": (WIDTH,) for part in (0, 1)}
    found["encoder.final_layer_norm.weight"] = (WIDTH,)
    return found


def arrays(kind: str) -> dict[str, np.ndarray]:
    """Array number n by name is normal noise of NumPy's legacy generator seeded n, which is the
    same in all its versions: of deviation 1 in tables, 0.15 in maps, and around 1 in norms."""
    found = {}
    for number, (name, shape) in enumerate(sorted(shapes(kind).items())):
        noise = np.random.RandomState(number).standard_normal(shape)
        if "norm" in name:
            noise = 1 + 0.2 * noise
        elif "shared" not in name and "bias" not in name:
            noise = 0.15 * noise
        found[name] = np.asarray(noise, np.float32)
    return found


def ids() -> np.ndarray:
    """Token ids [4, 150] of ragged captions: an end mark, 1, after each, then padding, 0."""
    made = np.random.RandomState(0).randint(2, VOCABULARY, (len(LENGTHS), max(LENGTHS)))
    for row, length in zip(made, LENGTHS, strict=True):
        row[length - 1], row[length:] = 1, 0
    return made


def write_folder(folder: Path, kind: str) -> Path:
    """Writes config.json, model.safetensors and spiece.model; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config(kind)))
    save_file(arrays(kind), folder / "model.safetensors")
    (folder / "spiece.model").write_bytes(sentencepiece_model())
    return folder


def sentencepiece_model() -> bytes:
    """A unigram model of at most VOCABULARY pieces, whose unknown is 3, after a mark of the start
    that T5 does not use."""
    import sentencepiece

    made = io.BytesIO()
    random = np.random.RandomState(0)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(random.choice(WORDS, 6)) for _ in range(200)]),
        model_writer=made,
        model_type="unigram",
        vocab_size=48,
        hard_vocab_limit=False,
        pad_id=0,
        eos_id=1,
        bos_id=2,
        unk_id=3,
        num_threads=1,
        minloglevel=2,
    )
    return made.getvalue()
