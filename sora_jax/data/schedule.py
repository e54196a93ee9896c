"""Which bucket a step draws from, and the shuffling that everything of the loader is made of.

All of it is arithmetic on (seed, step): no state, and as fast at step 10**9 as at step 0.
"""

import bisect
import dataclasses
import functools
import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from sora_jax.errors import ConfigError

BLOCK_STEPS = 100  # in every block of so many steps each bucket has exactly its share...
BLOCK_BUCKETS = 50  # ...for up to so many buckets, and in proportion longer for more


def hash_seed(*parts: object) -> int:
    """32-bit seed from a label. Sums like seed + epoch would make neighbouring seeds overlap."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4], "little")


def shuffled(index: int, size: int, seed: int) -> int:
    """Where a random permutation of range(size) sends an index.

    Grain's shuffle needs no memory, but below 65,536 its cost is inverse to the size: 0.3 ms at 200
    and 13 ms at 2. A small permutation is kept instead.
    """
    if size < 2**16:
        return int(_permutation(size, seed)[index])
    return int(_index_shuffle()(index, max_index=size - 1, seed=seed, rounds=4))


@functools.cache
def _index_shuffle() -> Any:
    """Imported late: checking an experiment makes a schedule, and need not wait for Grain."""
    from grain.experimental import index_shuffle

    return index_shuffle


@functools.lru_cache(maxsize=512)  # of 128 KiB at most
def _permutation(size: int, seed: int) -> np.ndarray:
    # Ranks of raw bits, which NumPy promises never to change; Generator.permutation it does not.
    return np.argsort(np.random.PCG64(seed).random_raw(size), kind="stable").astype(np.uint16)


def apportioned(weights: Sequence[float], steps: int) -> tuple[int, ...]:
    """Steps of each bucket, `steps` in all: the exact shares, rounded by largest remainder."""
    exact = np.asarray(weights, np.float64) / np.sum(weights) * steps
    counts = np.floor(exact).astype(int)
    missing = steps - counts.sum()
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return tuple(counts.tolist())


@dataclasses.dataclass(frozen=True)
class _Stretch:
    """Steps over which the weights are the same: whole blocks, and at a change a shorter one."""

    start: int  # its first step
    first_block: int  # of the schedule's blocks, counted through all stretches
    bases: tuple[int, ...]  # batches of each bucket before it
    counts: tuple[int, ...]  # steps of each bucket in a whole block
    last: tuple[int, ...]  # and in the block after the whole ones, which the change cuts short
    whole: int | None = None  # blocks before that; None: it does not end

    def of_block(self, block: int) -> tuple[int, ...]:
        return self.last if block == self.whole else self.counts

    def next_bases(self) -> tuple[int, ...]:
        before = zip(self.bases, self.counts, self.last, strict=True)
        return tuple(base + count * (self.whole or 0) + last for base, count, last in before)


class Schedule:
    """Step -> (bucket, number of the batch in that bucket), the same on every host.

    Weights may change at any step. Every bucket goes on from the batch where it was, and the steps
    left over from whole blocks before a change are a shorter block, with shares to the nearest step
    as well.
    """

    def __init__(self, periods: Sequence[tuple[int, Sequence[float]]], seed: int) -> None:
        """`periods`: (first step, weight of each bucket from there on), steps ascending from 0. A
        bucket of weight 0 is not drawn.

        Raises ConfigError if a weight above 0 is less than half a step in a block.
        """
        self._seed = seed
        self._block = BLOCK_STEPS * -(-len(periods[0][1]) // BLOCK_BUCKETS)
        self._starts = [start for start, _ in periods]
        self._stretches: list[_Stretch] = []
        first_block, bases = 0, (0,) * len(periods[0][1])
        for (start, weights), end in zip(periods, [*self._starts[1:], None], strict=True):
            whole, rest = (None, 0) if end is None else divmod(end - start, self._block)
            counts, last = self._counts(weights, start), apportioned(weights, rest)
            self._stretches.append(_Stretch(start, first_block, bases, counts, last, whole))
            first_block += (whole or 0) + bool(rest)
            bases = self._stretches[-1].next_bases()

    def _counts(self, weights: Sequence[float], start: int) -> tuple[int, ...]:
        counts = apportioned(weights, self._block)
        if any(count == 0 < weight for count, weight in zip(counts, weights, strict=True)):
            raise ConfigError(
                f"bucket weights {tuple(weights)} from step {start} on: the smallest above 0 is "
                f"below one step in {self._block}"
            )
        return counts

    @property
    def shares(self) -> tuple[tuple[float, ...], ...]:
        """Of each period, the share of every bucket in its steps."""
        return tuple(tuple(n / self._block for n in each.counts) for each in self._stretches)

    @property
    def bases(self) -> tuple[tuple[int, ...], ...]:
        """Of each period, how many batches of every bucket come before it."""
        return tuple(each.bases for each in self._stretches)

    def drawn(self, steps: int) -> tuple[int, ...]:
        """Batches of each bucket in the first so many steps."""
        stretch = self._stretches[bisect.bisect_right(self._starts, max(steps - 1, 0)) - 1]
        blocks = (steps - stretch.start) // self._block
        pairs = zip(stretch.bases, stretch.counts, strict=True)
        found = [base + blocks * count for base, count in pairs]
        for step in range(stretch.start + blocks * self._block, steps):
            found[self[step][0]] += 1
        return tuple(found)

    def __getitem__(self, step: int) -> tuple[int, int]:
        stretch = self._stretches[bisect.bisect_right(self._starts, step) - 1]
        block, offset = divmod(step - stretch.start, self._block)
        counts = stretch.of_block(block)
        seed = hash_seed("schedule", self._seed, stretch.first_block + block)
        rank = shuffled(offset, sum(counts), seed)
        bucket = 0
        while rank >= counts[bucket]:
            rank -= counts[bucket]
            bucket += 1
        return bucket, stretch.bases[bucket] + block * stretch.counts[bucket] + rank
