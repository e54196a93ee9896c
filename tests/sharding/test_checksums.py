"""Checksums: against the same sum in NumPy, over any mesh, and of every bit."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from sora_jax.sharding.checksums import _sums, checksums
from tests.tiny import eight_device_mesh, one_device_mesh

RANDOM = np.random.default_rng(0)
ARRAYS = {
    "weights": RANDOM.standard_normal((8, 4, 3)).astype(np.float32),
    "moments": RANDOM.standard_normal((16, 2)).astype(ml_dtypes.bfloat16),
    "count": np.asarray(7, np.int32),
    "bytes": RANDOM.integers(0, 256, 8).astype(np.uint8),
}


def on_one_device(arrays: dict[str, np.ndarray]) -> dict[str, jax.Array]:
    whole = NamedSharding(one_device_mesh(), PartitionSpec())
    return {name: jax.device_put(array, whole) for name, array in arrays.items()}


def by_hand(array: np.ndarray) -> int:
    words = array.reshape(-1).view(f"u{array.itemsize}")
    return sum((2 * place + 1) * int(word) for place, word in enumerate(words)) % 2**32


def test_they_are_the_sums_that_they_say() -> None:
    assert checksums(on_one_device(ARRAYS)) == {n: by_hand(a) for n, a in ARRAYS.items()}


def test_they_are_the_same_over_any_mesh() -> None:
    split = NamedSharding(eight_device_mesh(), PartitionSpec(("replica", "fsdp", "context")))
    whole = NamedSharding(eight_device_mesh(), PartitionSpec())
    spread = {
        name: jax.device_put(array, split if array.ndim else whole)
        for name, array in ARRAYS.items()
    }
    assert checksums(spread) == checksums(on_one_device(ARRAYS))


@pytest.mark.parametrize("name", ["weights", "moments", "bytes"])
def test_any_bit_that_flips_is_seen(name: str) -> None:
    before = checksums(on_one_device(ARRAYS))
    raw = ARRAYS[name].copy()
    size = raw.nbytes * 8
    for bit in RANDOM.choice(size, min(size, 40), replace=False):
        flipped = raw.copy()
        flat = flipped.reshape(-1).view(np.uint8)
        flat[bit // 8] ^= np.uint8(1 << (bit % 8))
        after = checksums(on_one_device({**ARRAYS, name: flipped}))
        assert [n for n in before if before[n] != after[n]] == [name]


def test_nans_are_bits_like_any_other() -> None:
    found = set()
    for bits in (2**31 - 1, 2**32 - 1):
        array = np.asarray([bits], np.uint32).view(np.float32)
        assert np.isnan(array).all()
        found.add(checksums(on_one_device({"x": array}))["x"])
    assert len(found) == 2


def test_they_take_no_memory_to_speak_of() -> None:
    array = jax.ShapeDtypeStruct((512, 1024), jnp.float32)
    memory = jax.jit(_sums).lower([array, array]).compile().memory_analysis()
    assert memory.temp_size_in_bytes < array.size * 4 / 100
