"""Peaks of memory are those of the process, and of the fullest device where devices tell."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from sora_jax.train import memory as module
from sora_jax.train.memory import memory


def test_the_host_peak_is_what_the_system_says() -> None:
    status = Path("/proc/self/status")
    if not status.exists():
        pytest.skip("only Linux has another place to read it from")
    held = np.ones(2**26)  # half a GiB, beside which what Linux adds up late is little
    [line] = [line for line in status.read_text().splitlines() if line.startswith("VmHWM")]
    kibibytes = int(line.split()[1])
    assert memory()["memory/host_peak_gib"] == pytest.approx(kibibytes / 2**20, abs=0.008)
    assert memory()["memory/host_peak_gib"] > held.nbytes / 2**30


def test_devices_tell_theirs_or_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert "memory/device_peak_gib" not in memory()  # CPUs do not tell
    stats = [None, {"peak_bytes_in_use": 2**30}, {"peak_bytes_in_use": 3 * 2**30}, {"other": 1}]
    devices = [SimpleNamespace(memory_stats=lambda each=each: each) for each in stats]
    monkeypatch.setattr(module.jax, "local_devices", lambda: devices)
    assert memory()["memory/device_peak_gib"] == 3.0
