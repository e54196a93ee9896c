"""Embeddings of clips, as the table holds them: float32 of length 1, and which of them are near."""

import functools
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

# Two embeddings with a cosine of 0.95 fall on one side of a plane in 90 of 100 cases, so they
# share a given key with a chance of 0.28, and one of all with more than 0.9999; at 0.9, 0.995.
PLANES = 12  # of a key
KEYS = 32


def keys(embedding: bytes) -> Iterator[bytes]:
    """Keys of which near embeddings share at least one, nearly always: on which side of random
    planes it lies. Source: Charikar, "Similarity estimation techniques from rounding", 2002."""
    vector = np.frombuffer(embedding, "<f4")
    sides = (_planes(len(vector)) @ vector > 0).reshape(KEYS, PLANES)
    for number, packed in enumerate(np.packbits(sides, axis=1)):
        yield b"embedding" + bytes([number]) + packed.tobytes()


def cosine(one: bytes, other: bytes) -> float:
    return float(np.dot(np.frombuffer(one, "<f4"), np.frombuffer(other, "<f4")))


@functools.cache
def _planes(size: int) -> Float[np.ndarray, "p d"]:
    generator = np.random.default_rng(0)
    return generator.standard_normal((KEYS * PLANES, size), np.float32)
