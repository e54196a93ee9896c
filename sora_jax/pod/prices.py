"""What runs cost: slices with their peak, memory and price an hour."""

import dataclasses
import re

from sora_jax.errors import ConfigError
from sora_jax.pod.accelerators import accelerator
from sora_jax.pod.chips import GIBIBYTE

# Assumed, about what is asked on demand, and not checked against a price list: these change, and
# differ by region and commitment. Plans take a price of one's own.
DOLLARS_A_CHIP_HOUR = {"v5e": 1.20, "v5p": 4.20, "v6e": 2.70, "tpu7x": 12.00}
# Of a core with 256-bit units: 2 multiply-adds of 8 numbers a cycle, at 3 GHz.
CORE_FLOPS, CORE_BYTES = 2 * 2 * 8 * 3e9, 2 * GIBIBYTE
# Shares of the peak that training is assumed to reach, where a plan is not told better.
TPU_UTILISATION, CPU_UTILISATION = 0.4, 0.12


@dataclasses.dataclass(frozen=True)
class Slice:
    """Devices that a run takes together. peak_flops: of all, a second; device_bytes: memory of one;
    utilisation: share of the peak that training is assumed to reach (MFU)."""

    name: str
    devices: int
    peak_flops: float
    device_bytes: int
    dollars_an_hour: float
    utilisation: float

    def hours(self, flops: float) -> float:
        """Of training for so many FLOPs."""
        return flops / (self.peak_flops * self.utilisation) / 3600


def find_slice(
    name: str, dollars_a_chip_hour: float | None = None, utilisation: float | None = None
) -> Slice:
    """A slice by its name, such as "v5p-8", or "cpu-2": so many cores of one machine, at no price.

    Raises:
        ConfigError: there is none, or the price or the utilisation cannot be.
    """
    if dollars_a_chip_hour is not None and dollars_a_chip_hour < 0:
        raise ConfigError(f"a price of {dollars_a_chip_hour} dollars a chip-hour is negative")
    if utilisation is not None and not 0 < utilisation <= 1:
        raise ConfigError(f"a utilisation of {utilisation} is not above 0 and at most 1")
    if match := re.fullmatch(r"cpu-([1-9]\d*)", name):
        cores = int(match[1])
        return Slice(
            name,
            devices=1,
            peak_flops=cores * CORE_FLOPS,
            device_bytes=cores * CORE_BYTES,
            dollars_an_hour=cores * (dollars_a_chip_hour or 0.0),
            utilisation=utilisation or CPU_UTILISATION,
        )
    found = accelerator(name)
    price = dollars_a_chip_hour
    return Slice(
        found.name,
        devices=found.devices,
        peak_flops=found.devices * found.chip.peak_flops,
        device_bytes=found.chip.hbm_bytes,
        dollars_an_hour=found.chips
        * (DOLLARS_A_CHIP_HOUR[found.chip.generation] if price is None else price),
        utilisation=utilisation or TPU_UTILISATION,
    )
