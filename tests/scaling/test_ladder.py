"""Rungs of a ladder bracket an optimum; rules give what their laws say."""

import numpy as np
import pytest

from sora_jax.errors import ConfigError
from sora_jax.models.dit import DiTConfig
from sora_jax.scaling.ladder import Ladder, nearest_rung
from sora_jax.scaling.rules import Fixed, MuP, PowerLaw

LADDER = Ladder(head_width=16, aspect=32.0)


def cubic(heads: int) -> int:
    return 1000 * heads**3


def test_heads_keep_their_width_and_the_depth_follows() -> None:
    base = DiTConfig(depth=7, width=96, heads=2, patch=1)
    sizes = [LADDER.size(base, heads) for heads in (1, 4, 8)]
    assert [(size.width, size.heads, size.depth) for size in sizes] == [
        (16, 1, 1),
        (64, 4, 2),
        (128, 8, 4),
    ]
    assert {size.patch for size in sizes} == {1}
    assert Ladder(head_width=16, depth=3).size(base, 8).depth == 3


def test_the_nearest_rung_is_nearest_in_the_logarithm() -> None:
    between = np.sqrt(cubic(4) * cubic(5))
    assert [nearest_rung(cubic, between * by) for by in (0.99, 1.01)] == [4, 5]
    assert [nearest_rung(cubic, target) for target in (1.0, 1000.0)] == [1, 1]


@pytest.mark.parametrize("optimum", [1e5, 3e6, 1e9])
def test_seven_sizes_reach_around_the_optimum(optimum: float) -> None:
    rungs = LADDER.bracket(cubic, optimum, 7, span=4.0)
    assert rungs == sorted(set(rungs))
    assert len(rungs) == 7
    parameters = [cubic(heads) for heads in rungs]
    assert parameters[1] < optimum < parameters[-2]
    if optimum > 1e6:  # where rungs lie closely enough
        np.testing.assert_allclose(parameters, optimum * 4.0 ** np.linspace(-1, 1, 7), rtol=0.15)


def test_a_ladder_without_sizes_around_the_optimum_is_refused() -> None:
    with pytest.raises(
        ConfigError, match="there are no 7 sizes around 8,000 parameters, the small"
    ):
        LADDER.bracket(cubic, 8e3, 7, span=4.0)
    with pytest.raises(ConfigError, match="there are no 1 sizes around"):
        LADDER.bracket(cubic, 8e3, 1, span=4.0)
    with pytest.raises(ConfigError, match="head_width=3 must be even"):
        Ladder(head_width=3)
    with pytest.raises(ConfigError, match="depth=0 must be positive"):
        Ladder(head_width=16, depth=0)


def test_rules() -> None:
    assert Fixed(512.0, 3e-3).batch_tokens(1e6, 1e9) == 512.0
    transferred = MuP(512.0, 3e-3, base_width=64)
    assert (transferred.name, transferred.base_width) == ("mup", 64)
    assert transferred.peak_rate(1e6, 1e9) == transferred.peak_rate(1e9, 1e9) == 3e-3
    law = PowerLaw()
    assert law.batch_tokens(1e9, 1e9) == pytest.approx(2.18e4)
    assert law.batch_tokens(8e9, 1e10) == pytest.approx(2.18e4 * 10**0.81 * 8**0.19)
    assert law.peak_rate(8e9, 1e10) == pytest.approx(2e-4 * 10**-0.045 * 8**-0.162)
