"""Which clips a world draws for training, which combinations it holds back, and beyond what ranges
it is tested.

Held-out combinations (a colour and a shape, say) have parts that training shows, each with other
partners; a clip that shows one never occurs in training. Out of distribution are speeds and sizes
between and beyond those of training, as in arXiv:2411.02385.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import product
from typing import Literal

import numpy as np

Split = Literal["train", "held_out"]


@dataclass(frozen=True)
class Cell:
    """Factors on the speeds and sizes that training shows."""

    speed: float = 1.0
    size: float = 1.0


IN_DISTRIBUTION = Cell()


def ood_grid(
    speeds: Iterable[float] = (0.8, 1.0, 1.5), sizes: Iterable[float] = (0.75, 1.0, 1.25)
) -> tuple[Cell, ...]:
    """Every speed with every size, in that order; the cell of training itself is left out."""
    cells = (Cell(speed, size) for speed, size in product(speeds, sizes))
    return tuple(cell for cell in cells if cell != IN_DISTRIBUTION)


def is_held_out(one: int, other: int) -> bool:
    """Whether the pair of these numbers, of two attributes, is kept from training: one in four, so
    that each value still occurs with three quarters of its partners."""
    return (one + other) % 4 == 0


def fits(pairs: Iterable[tuple[int, int]], split: Split) -> bool:
    """Whether a clip that shows these pairs belongs to the split."""
    return any(is_held_out(*pair) for pair in pairs) == (split == "held_out")


def generator(key: int, seed: int) -> np.random.Generator:
    """Random numbers of a world's seed. Seeds are hashed: neighbours are independent, and so are
    worlds of different keys."""
    return np.random.default_rng(np.random.SeedSequence((key, seed)))
