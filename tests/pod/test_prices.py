"""Slices have the sum of their chips, and cost what their hours do."""

import pytest

from sora_jax.errors import ConfigError
from sora_jax.pod.prices import find_slice


def test_a_slice_is_its_chips() -> None:
    four = find_slice("v5p-8")  # TensorCores, two a chip
    assert (four.devices, four.peak_flops, four.dollars_an_hour) == (4, 4 * 459e12, 4 * 4.20)
    assert four.hours(3600 * 4 * 459e12 * 0.4) == pytest.approx(1.0)
    cores = find_slice("tpu7x-16")  # each core is a device
    assert (cores.devices, cores.peak_flops) == (16, 8 * 2307e12)
    assert cores.dollars_an_hour == 8 * 12.0


def test_price_and_utilisation_may_be_given() -> None:
    assert find_slice("v5p-8", 1.5).dollars_an_hour == 6.0
    assert find_slice("v5p-8", utilisation=0.2).hours(1e18) == 2 * find_slice("v5p-8").hours(1e18)
    assert find_slice("cpu-2").dollars_an_hour == 0.0
    assert find_slice("cpu-4").hours(1e12) == 0.5 * find_slice("cpu-2").hours(1e12)


def test_what_cannot_be_is_one_sentence() -> None:
    with pytest.raises(ConfigError, match="there is no accelerator 'v5p-9'; did you mean 'v5p-8'"):
        find_slice("v5p-9")
    with pytest.raises(ConfigError, match="there is no accelerator 'cpu-0'"):
        find_slice("cpu-0")
    with pytest.raises(ConfigError, match="price of -1.0 dollars"):
        find_slice("v5p-8", -1.0)
    with pytest.raises(ConfigError, match="utilisation of 1.5 is not"):
        find_slice("v5p-8", utilisation=1.5)
