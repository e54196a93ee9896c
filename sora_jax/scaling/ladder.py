"""Widths, and the depth that goes with each: the sizes that a sweep compares."""

import dataclasses
from bisect import bisect_left
from collections.abc import Callable

import numpy as np

from sora_jax.errors import ConfigError
from sora_jax.models.dit import DiTConfig

MOST_HEADS = 1024


@dataclasses.dataclass(frozen=True)
class Ladder:
    """Transformers of one shape. A rung is a number of heads, all `head_width` wide; the depth is
    the width over `aspect`, so that parameters grow as width^3, or `depth` at every width, as rates
    found on a narrow network ask for (muP)."""

    head_width: int
    aspect: float = 32.0
    depth: int | None = None

    def __post_init__(self) -> None:
        if self.head_width < 2 or self.head_width % 2 or self.aspect <= 0:
            raise ConfigError(
                f"ladder: head_width={self.head_width} must be even and positive, and "
                f"aspect={self.aspect} positive"
            )
        if self.depth is not None and self.depth < 1:
            raise ConfigError(f"ladder: depth={self.depth} must be positive")

    def size(self, base: DiTConfig, heads: int) -> DiTConfig:
        """The rung of so many heads; the rest is of `base`."""
        width = heads * self.head_width
        depth = self.depth or max(1, round(width / self.aspect))
        return dataclasses.replace(base, width=width, heads=heads, depth=depth)

    def bracket(
        self, parameters: Callable[[int], int], optimum: float, count: int, span: float
    ) -> list[int]:
        """`count` rungs, ascending, evenly spread in log(parameters) from optimum / span to
        optimum * span, each the nearest that is still free.

        Args:
            parameters: of the rung of so many heads; grows with them.
            optimum: parameters that are expected to be best.

        Raises:
            ConfigError: there are not so many rungs, or they do not reach beyond the optimum on
                both sides.
        """
        targets = optimum * span ** np.linspace(-1, 1, count)
        nearest = [nearest_rung(parameters, target) for target in targets]
        middle = (count - 1) // 2
        for place in range(middle - 1, -1, -1):
            nearest[place] = min(nearest[place], nearest[place + 1] - 1)
        for place in range(middle + 1, count):
            nearest[place] = max(nearest[place], nearest[place - 1] + 1)
        least, most = parameters(max(nearest[0], 1)), parameters(nearest[-1])
        if nearest[0] < 1 or not least < optimum < most:
            raise ConfigError(
                f"ladder: with heads {self.head_width} wide there are no {count} sizes around "
                f"{optimum:,.0f} parameters, the smallest having {parameters(1):,}: give narrower "
                "heads, fewer sizes or larger budgets"
            )
        return nearest


def nearest_rung(parameters: Callable[[int], int], target: float) -> int:
    """The number of heads, of 1 to MOST_HEADS, whose parameters are nearest to `target`, in log."""
    above = bisect_left(range(MOST_HEADS), target, lo=1, key=parameters)
    return min(
        (max(above - 1, 1), above), key=lambda heads: abs(np.log(parameters(heads) / target))
    )
