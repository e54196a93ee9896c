"""What each generation of TPU can do: the figures that times and memory are worked out from.

They are Google's published ones (docs.cloud.google.com/tpu/docs/v5e, v5p, v6e, tpu7x) except where
a comment says otherwise. A figure is per jax device. That is a chip, and on tpu7x one of its two
cores, so there the chip's peak, memory and host link are halved.
"""

import dataclasses

from sora_jax.errors import ConfigError, nearest

GIBIBYTE = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One generation. Rates are per second, sizes in bytes; all but the links are per device.

    link_bandwidth: of one ICI link in one direction; a chip has two links an axis, and the devices
    of a chip share them. wraps_at: an axis of at least so many chips is a ring, a shorter one a
    line. host_bandwidth, dcn_bandwidth: assumptions, as the network and the host are shared.
    """

    generation: str
    device_kind: str
    devices_per_chip: int
    peak_flops: float
    hbm_bytes: int
    hbm_bandwidth: float
    clock_hz: float
    link_bandwidth: float
    torus_axes: int
    wraps_at: int
    host_bandwidth: float
    dcn_bandwidth: float


# Clocks are those in which libtpu counts `estimated_cycles` and bundles. They follow from the peak:
# 8 matrix units of 128 x 128 on v5p and 4 on v5e; 4 times 256 x 256 products a cycle on v6e and on
# a core of tpu7x; 2 operations each.
#
# Links: published, both directions and all links of a chip together, are 400 GB/s over 4 links on
# v5e, 1,200 over 6 on v5p and tpu7x, 800 over 4 on v6e. So 50 and 100 GB/s for one link one way, of
# which nine tenths are counted on, as the TPU chapter of "How to Scale Your Model" does.
#
# Rings: v5e and v6e have wrap-around links only along a full axis of 16 chips. v5p and tpu7x are
# built of cubes of 4 x 4 x 4 that optical switches close into rings, so at every multiple of 4; a
# slice smaller than a cube has none.
#
# Host link: 16 GB/s a chip, 32 on v6e and tpu7x. DCN: the published share of a chip, 25, 50, 100
# and 100 Gbit/s.
CHIPS = (
    Chip(
        generation="v5e",
        device_kind="TPU v5 lite",
        devices_per_chip=1,
        peak_flops=197e12,
        hbm_bytes=16 * GIBIBYTE,
        hbm_bandwidth=0.819e12,
        clock_hz=1.5e9,
        link_bandwidth=45e9,
        torus_axes=2,
        wraps_at=16,
        host_bandwidth=16e9,
        dcn_bandwidth=3.125e9,
    ),
    Chip(
        generation="v5p",
        device_kind="TPU v5",
        devices_per_chip=1,
        peak_flops=459e12,
        hbm_bytes=95 * GIBIBYTE,
        hbm_bandwidth=2.765e12,
        clock_hz=1.75e9,
        link_bandwidth=90e9,
        torus_axes=3,
        wraps_at=4,
        host_bandwidth=16e9,
        dcn_bandwidth=6.25e9,
    ),
    Chip(
        generation="v6e",
        device_kind="TPU v6 lite",
        devices_per_chip=1,
        peak_flops=918e12,
        hbm_bytes=32 * GIBIBYTE,
        hbm_bandwidth=1.64e12,
        clock_hz=1.75e9,
        link_bandwidth=90e9,
        torus_axes=2,
        wraps_at=16,
        host_bandwidth=32e9,
        dcn_bandwidth=12.5e9,
    ),
    Chip(
        generation="tpu7x",
        device_kind="TPU7x",
        devices_per_chip=2,
        peak_flops=2307e12 / 2,
        hbm_bytes=192 * GIBIBYTE // 2,
        hbm_bandwidth=7.38e12 / 2,
        clock_hz=2.2e9,
        link_bandwidth=90e9,
        torus_axes=3,
        wraps_at=4,
        host_bandwidth=32e9 / 2,
        dcn_bandwidth=12.5e9 / 2,
    ),
)
GENERATIONS = {chip.generation: chip for chip in CHIPS}


def chip_of(device_kind: str) -> Chip:
    """The chip that jax names `device_kind`, such as "TPU v5"; `ConfigError` if there is none."""
    for chip in CHIPS:
        if chip.device_kind == device_kind:
            return chip
    kinds = [chip.device_kind for chip in CHIPS]
    hint = nearest(device_kind, kinds)
    raise ConfigError(
        f"no figures are known for the device kind '{device_kind}'{hint}; "
        f"known are: {', '.join(kinds)}"
    )
