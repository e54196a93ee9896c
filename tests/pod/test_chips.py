"""The table of chips agrees with itself, and an unknown chip is refused in one sentence."""

import pytest

from sora_jax.errors import ConfigError
from sora_jax.pod.chips import CHIPS, GENERATIONS, Chip, chip_of

# Multiply-adds that the matrix units of one device finish in a cycle.
PRODUCTS = {
    "v5e": 4 * 128 * 128,
    "v5p": 8 * 128 * 128,
    "v6e": 4 * 256 * 256,
    "tpu7x": 4 * 256 * 256,
}


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.generation)
def test_the_clock_explains_the_peak(chip: Chip) -> None:
    assert chip.peak_flops == pytest.approx(
        2 * PRODUCTS[chip.generation] * chip.clock_hz, rel=0.005
    )


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.generation)
def test_a_chip_is_found_by_generation_and_by_device_kind(chip: Chip) -> None:
    assert GENERATIONS[chip.generation] is chip
    assert chip_of(chip.device_kind) is chip


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.generation)
def test_each_step_away_from_the_chip_is_slower(chip: Chip) -> None:
    links = 2 * chip.torus_axes * chip.link_bandwidth / chip.devices_per_chip
    assert chip.hbm_bandwidth > links > chip.host_bandwidth > chip.dcn_bandwidth


def test_an_unknown_device_kind_is_named_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="device kind 'TPU v5p'; did you mean 'TPU v5'?"):
        chip_of("TPU v5p")
    with pytest.raises(ConfigError, match="'cpu'; known are: TPU v5 lite, TPU v5,"):
        chip_of("cpu")
