"""Named arrays as Orbax writes them: quickly while a run goes on, and read in little memory.

A save takes cores and Python's lock from the loop, for each array more than for each byte. So what
is never read is left out: a file of shardings with an entry for each array, as a restore brings its
own, and compression, which makes numbers as random as weights 8 % smaller.

What is read is in memory twice until it stands in its array. So only so much is read at once.
"""

import contextlib
import ctypes
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp
import tensorstore
from etils import epath

PORTIONS = 32  # of what a process restores, of which one is on its way at a time
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
MIB = 2**20
CHUNK_BYTES = 16 * MIB  # what is read at once, and held beside the array that it becomes part of


def array_handler(bytes_at_once: int | None = None) -> ocp.PyTreeCheckpointHandler:
    """Writes and reads a mapping of arrays by name."""
    arrays = ocp.type_handlers.ArrayHandler(enable_write_sharding_file=False)
    return ocp.PyTreeCheckpointHandler(
        use_compression=False,
        type_handler_registry=ocp.type_handlers.create_type_handler_registry((jax.Array, arrays)),
        restore_concurrent_gb=None if bytes_at_once is None else bytes_at_once / 1e9,
    )


def as_saved(arrays: Mapping[str, Any]) -> ocp.args.PyTreeSave:
    """What saves a mapping of arrays, in chunks of at most CHUNK_BYTES."""
    each = ocp.SaveArgs(chunk_byte_size=CHUNK_BYTES)
    return ocp.args.PyTreeSave(dict(arrays), save_args=dict.fromkeys(arrays, each))


def bytes_read() -> int:
    """What TensorStore has read of files and buckets since this process began."""
    found = tensorstore.experimental_collect_matching_metrics("/tensorstore/kvstore/")
    counters = [each for each in found if each["name"].endswith("/bytes_read")]
    return sum(value["value"] for counter in counters for value in counter["values"])


def read_metadata(path: epath.Path) -> dict[str, Any]:
    """Of each array that was saved there, what Orbax knows of it: shape, chunks."""
    return dict(array_handler().metadata(path))


def read_arrays(
    path: epath.Path, metadata: Mapping[str, Any], abstract: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """What was saved there, in the shardings of `abstract`, which names all of it or some."""
    handler = array_handler(_bytes_at_once(metadata, abstract))
    kinds = ocp.checkpoint_utils.construct_restore_args(dict(abstract))
    arguments = ocp.args.PyTreeRestore(abstract, restore_args=kinds, partial_restore=True)
    with _buffers_given_back():
        return dict(handler.restore(path, args=arguments))


@contextlib.contextmanager
def _buffers_given_back() -> Iterator[None]:
    """Has glibc give each buffer back to the system once it is free, where it would keep those of
    every thread that reads. Afterwards its thresholds are where it would itself have raised them
    to.
    """
    try:
        set_option = ctypes.CDLL(None).mallopt
    except AttributeError:  # of another C library
        yield
        return
    set_option(M_MMAP_THRESHOLD, MIB)
    try:
        yield
    finally:
        set_option(M_MMAP_THRESHOLD, 32 * MIB)
        set_option(M_TRIM_THRESHOLD, 64 * MIB)


def _bytes_at_once(metadata: Mapping[str, Any], abstract: Mapping[str, Any]) -> int:
    """A portion of all that this process reads, and no less than its largest part."""
    sizes = [
        size
        for name, array in abstract.items()
        for size in _sizes(array, metadata[name].storage.chunk_shape)
    ]
    return max(max(sizes), sum(sizes) // PORTIONS) + 1024  # Orbax wants more than the largest


def _sizes(array: Any, chunks: tuple[int, ...]) -> list[int]:
    """Bytes of each part of an array that this process reads, which are whole chunks."""
    parts = {
        tuple(part.indices(size)[:2] for part, size in zip(index, array.shape, strict=True))
        for index in array.sharding.addressable_devices_indices_map(array.shape).values()
    }
    return [
        array.dtype.itemsize
        * math.prod(
            -(-stop // chunk) * chunk - start // chunk * chunk
            for (start, stop), chunk in zip(part, chunks, strict=True)
        )
        for part in parts
    ]
