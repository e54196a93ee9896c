"""Cosines over the cells of a fold: the basis that an autoencoder begins with."""

import math

import numpy as np
from jaxtyping import Float

Basis = Float[np.ndarray, "pixels outputs"]


def lowest_frequencies(inputs: int, outputs: int, fold: tuple[int, int]) -> Basis:
    """Orthonormal columns for folding frames x side x side cells of so many inputs: cosines
    (DCT-II) over frames, rows and columns, and of pixels over their colours too, those that carry
    most of natural pictures first. Where there are more outputs than frequencies, the rest is zero.

    Energy falls as a power of frequency, and channels of a fold before are taken to be in this
    order, so products of ranks order them all.
    """
    over_channels = _cosines(3) if inputs == 3 else np.eye(inputs)
    axes = (_cosines(fold[0]), _cosines(fold[1]), _cosines(fold[1]), over_channels)
    basis = np.einsum("ap,bi,cj,dk->pijkabcd", *axes)
    ranks = np.einsum("a,b,c,d->abcd", *(np.arange(len(axis)) + 1.0 for axis in axes))
    lowest = np.argsort(ranks.ravel(), kind="stable")[:outputs]
    columns = basis.reshape(ranks.size, ranks.size)[:, lowest]
    return np.pad(columns, ((0, 0), (0, outputs - columns.shape[1]))).astype(np.float32)


def _cosines(size: int) -> Float[np.ndarray, "k p"]:
    """Row k is the cosine of frequency k over the places p."""
    k, p = np.arange(size)[:, None], np.arange(size)
    rows = np.cos(np.pi * k * (2 * p + 1) / (2 * size)) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows
