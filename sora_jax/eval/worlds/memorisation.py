"""Whether clips are copies: how near the nearest training clip is, and the nearest unseen one."""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice

import numpy as np
from jaxtyping import Float, Int, UInt8

Video = UInt8[np.ndarray, "t h w 3"]
CLIPS_AT_ONCE = 32


@dataclasses.dataclass(frozen=True, eq=False)
class Nearest:
    """Of each clip the nearest of others: which, and the root mean square distance of their pixels
    in units of full brightness."""

    index: Int[np.ndarray, " n"]
    distance: Float[np.ndarray, " n"]


@dataclasses.dataclass(frozen=True, eq=False)
class Memorisation:
    """Distances of clips to the nearest training clip and to the nearest unseen one, of sets of one
    size. `copied` is the share that lies nearer to training: a half is what no memory comes to."""

    to_training: Float[np.ndarray, " n"]
    to_unseen: Float[np.ndarray, " n"]

    @property
    def nearer(self) -> Float[np.ndarray, " n"]:
        """Of each clip 1 if it is nearer to training, and a half of a tie."""
        return (self.to_training < self.to_unseen) + 0.5 * (self.to_training == self.to_unseen)

    @property
    def copied(self) -> float:
        return float(self.nearer.mean())


def nearest(clips: Sequence[Video], others: Iterable[Video]) -> Nearest:
    """The nearest of the others to each clip; others are read once, a few at a time.

    Raises ValueError without others, and where their size is not that of the clips.
    """
    rows = _rows(clips)
    squares = (rows**2).sum(1)
    index = np.full(len(rows), -1)
    distance = np.full(len(rows), np.inf)
    for start, batch in _batches(others):
        if batch.shape[1] != rows.shape[1]:
            raise ValueError("clips and others differ in size: give both in one")
        apart = squares[:, None] + (batch**2).sum(1) - 2 * rows @ batch.T
        best = apart.argmin(1)
        # Near a copy the squares all but cancel, so the distance is taken anew.
        exact = np.sqrt(((rows - batch[best]) ** 2).mean(1))
        better = exact < distance
        index[better], distance[better] = start + best[better], exact[better]
    if (index < 0).any():
        raise ValueError("the nearest of no clips: give at least one")
    return Nearest(index, distance)


def memorisation(
    clips: Sequence[Video], training: Sequence[Video], unseen: Sequence[Video]
) -> Memorisation:
    """How near clips are to what was trained on, beside as many of the same world that were not.

    Raises ValueError for sets of different sizes: of the larger one, something is always nearer.
    """
    if len(training) != len(unseen):
        raise ValueError(
            f"{len(training)} training clips beside {len(unseen)} unseen ones: give as many of both"
        )
    return Memorisation(nearest(clips, training).distance, nearest(clips, unseen).distance)


def _batches(clips: Iterable[Video]) -> Iterator[tuple[int, np.ndarray]]:
    rest, start = iter(clips), 0
    while batch := list(islice(rest, CLIPS_AT_ONCE)):
        yield start, _rows(batch)
        start += len(batch)


def _rows(clips: Sequence[Video]) -> Float[np.ndarray, "n pixels"]:
    return np.stack(clips).reshape(len(clips), -1).astype(np.float32) / 255
