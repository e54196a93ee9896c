"""Slopes over widths and best rates, of numbers whose answer is known."""

from pathlib import Path

import numpy as np
import pytest

from sora_jax.scaling.width_transfer import (
    Basins,
    Coordinates,
    best_exponent,
    draw_basins,
    draw_coordinates,
)

RATES = (0.125, 0.25, 0.5, 1.0, 2.0)


def basin(best: float) -> tuple[float, ...]:
    return tuple(0.5 + 0.1 * (np.log2(rate) - best) ** 2 for rate in RATES)


FOUND = Basins(
    (64, 256),
    RATES,
    {
        "mup": {64: basin(-0.75), 256: basin(-0.5)},
        "standard": {64: basin(-0.75), 256: (*basin(-3.0)[:3], np.nan, np.inf)},
    },
)


def test_slopes_are_those_of_power_laws() -> None:
    powers = {"block": 1.0, "out": -0.25, "embed": 0.0}
    sizes = {
        part: tuple(3 * width**power for width in (64, 128, 512)) for part, power in powers.items()
    }
    found = Coordinates((64, 128, 512), {"mup": sizes}).slopes()["mup"]
    assert found == pytest.approx(powers, abs=1e-9)


def test_the_best_rate_is_the_lowest_point_of_a_parabola() -> None:
    assert best_exponent(RATES, basin(-0.75)) == pytest.approx(-0.75)
    assert FOUND.octaves() == pytest.approx({"mup": 0.25, "standard": 2.25})


def test_the_best_rate_is_measured_where_its_neighbours_are_not() -> None:
    assert best_exponent(RATES, (1.0, 2.0, 3.0, 4.0, 5.0)) == -3
    assert best_exponent(RATES, (3.0, 2.0, 1.0, np.nan, np.inf)) == -1
    assert FOUND.at_edge() == {"mup": [], "standard": [256]}


def test_the_transferred_loss_is_that_at_the_narrow_networks_rate() -> None:
    assert FOUND.transferred()["mup"][256] == FOUND.losses["mup"][256][2]
    assert np.isnan(
        Basins(
            FOUND.widths, RATES, {"s": {64: basin(0.0), 256: (0, 0, 0, np.nan, 0)}}
        ).transferred()["s"][256]
    )


def test_figures_are_png(tmp_path: Path) -> None:
    sizes = {"mup": {"block": (1.0, 1.1)}, "standard": {"block": (1.0, 4.0)}}
    draw_coordinates(Coordinates((64, 256), sizes), tmp_path / "coordinates.png")
    draw_basins(FOUND, tmp_path / "rates.png")
    for name in ("coordinates", "rates"):
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
