"""The most memory that a run has held so far, on its devices and on the host."""

import resource
import sys

import jax

GIBIBYTE = 2**30
RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes: getrusage counts KiB, but not on macOS


def memory() -> dict[str, float]:
    """Peaks since the process began, in GiB: of the fullest of its devices, where these tell, and
    of the process itself."""
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    peaks = [each["peak_bytes_in_use"] for each in stats if "peak_bytes_in_use" in each]
    host = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_UNIT
    found = {"memory/device_peak_gib": max(peaks) / GIBIBYTE} if peaks else {}
    return {**found, "memory/host_peak_gib": host / GIBIBYTE}
