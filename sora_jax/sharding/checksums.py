"""A number for the bits of each array of a tree, the same however it is split over devices."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, UInt32

from sora_jax.sharding.rules import mesh_of, replicated

WORDS = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}


def checksums(arrays: Mapping[str, jax.Array]) -> dict[str, int]:
    """Of each array, 32 bits over what it holds and where; one pass over its memory, on the devices
    that hold it, which all must call it; nothing as large as an array is made.

    Any single bit that flips changes it: of the words at places i the sum of (2 i + 1) word, modulo
    2^32, in which an odd factor loses no bit. Sums modulo 2^32 have no order, so any mesh comes to
    the same.
    """
    names = sorted(arrays)
    leaves = [arrays[name] for name in names]
    found = np.asarray(jax.jit(_sums, out_shardings=replicated(mesh_of(leaves)))(leaves))
    return {name: int(value) for name, value in zip(names, found, strict=True)}


def _sums(leaves: list[Array]) -> UInt32[Array, " leaves"]:
    return jnp.stack([_sum(leaf) for leaf in leaves])


def _sum(leaf: Array) -> UInt32[Array, ""]:
    if leaf.dtype == jnp.bool_:
        leaf = leaf.astype(jnp.uint8)
    words = lax.bitcast_convert_type(leaf, WORDS[leaf.dtype.itemsize]).astype(jnp.uint32)
    place = jnp.zeros(leaf.shape, jnp.uint32)
    stride = 1
    for axis in reversed(range(leaf.ndim)):
        numbers = lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
        place += numbers * jnp.uint32(stride % 2**32)
        stride *= leaf.shape[axis]
    # Both sums in one reduction: of a lone one XLA's CPU compiler writes all terms to memory.
    zero = jnp.uint32(0)
    placed, whole = lax.reduce(
        (words * place, words), (zero, zero), _added, dimensions=tuple(range(leaf.ndim))
    )
    return 2 * placed + whole


def _added(left: list[Array], right: list[Array]) -> list[Array]:
    return [a + b for a, b in zip(left, right, strict=True)]
