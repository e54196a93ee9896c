"""From what was counted to what is said, and what is said to have changed."""

import dataclasses
import json
from pathlib import Path

import pytest

from sora_jax.errors import ConfigError
from sora_jax.pod.chips import GENERATIONS
from sora_jax.pod.compiler import Memory
from sora_jax.pod.cost import CollectiveUse, Cost
from sora_jax.pod.golden import check
from sora_jax.pod.report import ClassReport, Work, joined, report_of, report_of_overflow, table

CHIP = GENERATIONS["v5p"]
DEVICES = 4
WORK = Work("tiny 4x64", 4, 64, {"parameters": 100, "ema": 100, "optimizer": 200}, 8e15, 10e15)
MEMORY = Memory(1000, 0, 500, 400, 0, 500, 0, 0, logged=True)


def use(kind: str, axes: tuple[str, ...], seconds: float, *, hidden: bool) -> CollectiveUse:
    return CollectiveUse(kind, axes, 2, hidden, calls=3, bytes=10, sent_bytes=5, seconds=seconds)


COST = Cost(
    matmul_flops=0,
    matmul_cycles=int(2 * CHIP.clock_hz),
    other_cycles=int(2 * CHIP.clock_hz),
    other_seconds=1.0,
    kernels=(),
    collectives=(
        use("all-gather", ("fsdp", "context"), 0.5, hidden=True),
        use("all-gather", ("context",), 0.25, hidden=False),
        use("all-reduce", ("context",), 0.25, hidden=True),
    ),
    host_bytes=0,
    unknown_loops=(),
)


def report() -> ClassReport:
    return report_of(WORK, CHIP, DEVICES, MEMORY, COST, kernel_seconds=4.0, compile_seconds=9.0)


def test_a_step_takes_between_what_waits_and_everything_in_turn() -> None:
    found = report()
    assert found.collective_seconds == {"fsdp+context": 0.5, "context": 0.5}
    assert found.exposed_seconds == 0.25
    assert found.step_seconds == {"low": 7.25, "high": 8.0}
    assert found.mfu is not None
    assert found.mfu["low"] == pytest.approx(2e15 / 459e12 / 8.0)
    assert found.mfu["high"] == pytest.approx(2e15 / 459e12 / 7.25)
    assert found.bound == "kernels"
    assert found.temporary_bytes == 600
    assert found.fits


def test_what_goes_to_the_host_waits_at_most_its_own_time() -> None:
    there = dataclasses.replace(COST, host_bytes=int(10 * CHIP.host_bandwidth))
    found = report_of(WORK, CHIP, DEVICES, MEMORY, there, kernel_seconds=4.0, compile_seconds=9.0)
    assert found.step_seconds == {"low": 10.0, "high": 18.0}


def test_micro_batches_and_the_close_of_their_step_come_to_one_report() -> None:
    close = Work("tiny 4x64", 0, 64, WORK.state_bytes, 0, 0)
    larger = dataclasses.replace(MEMORY, total=1500)
    cost = dataclasses.replace(
        COST, collectives=(use("all-reduce", ("replica",), 1.0, hidden=False),)
    )
    last = report_of(close, CHIP, DEVICES, larger, cost, kernel_seconds=0.0, compile_seconds=2.0)
    found = joined([(report(), 3), (last, 1)])
    assert (found.rows, found.peak_bytes, found.temporary_bytes) == (12, 1500, 1100)
    assert found.step_seconds == {"low": 3 * 7.25 + 4.0, "high": 3 * 8.0 + 4.0}
    assert found.collective_seconds == {"context": 1.5, "fsdp+context": 1.5, "replica": 1.0}
    assert (found.collectives or {})["all-reduce over replica"] == {"bytes": 10, "calls": 3}
    assert (found.collectives or {})["all-gather over context"] == {"bytes": 30, "calls": 9}
    assert found.kernel_seconds == 12.0
    assert found.mfu is not None
    assert found.mfu["low"] == pytest.approx(6e15 / 459e12 / 28.0)
    assert found.mfu["high"] == pytest.approx(6e15 / 459e12 / 25.75)
    assert found.compile_seconds == 11.0


def test_a_step_fits_if_all_its_programs_do() -> None:
    over = report_of_overflow(WORK, CHIP, DEVICES, needed=96 * 2**30, available=94 * 2**30)
    found = joined([(over, 2), (report(), 1)])
    assert not found.fits
    assert found.peak_bytes == 96 * 2**30
    assert found.step_seconds is None


def test_collectives_bound_a_step_that_they_outlast() -> None:
    slow = use("all-gather", ("context",), 20.0, hidden=True)
    cost = dataclasses.replace(COST, collectives=(slow,))
    found = report_of(WORK, CHIP, DEVICES, MEMORY, cost, kernel_seconds=0.0, compile_seconds=1.0)
    assert found.step_seconds == {"low": 20.0, "high": 23.0}
    assert found.bound == "collectives over context"


def test_a_chip_of_two_devices_does_twice_the_flops() -> None:
    found = report_of_overflow(WORK, GENERATIONS["tpu7x"], DEVICES, 2**37, 2**36)
    assert found.model_flops_per_chip == 4e15
    assert report().model_flops_per_chip == 2e15


def test_what_does_not_fit_says_by_how_much() -> None:
    found = report_of_overflow(WORK, CHIP, DEVICES, needed=96 * 2**30, available=94 * 2**30)
    assert not found.fits
    assert "does NOT fit, by 2.0" in table(found)
    assert "step" not in table(found)


def test_a_report_reads_as_a_paragraph() -> None:
    text = table(report())
    assert "step      7.250 to 8.000 s, MFU 54.5% to 60.1%, bound by kernels" in text
    assert len(text.splitlines()) == 6


def test_what_was_kept_is_compared(tmp_path: Path) -> None:
    pytest.importorskip("libtpu")
    kept = tmp_path / "golden.json"
    check([report()], kept)
    check([report()], kept)  # and nothing has changed

    more = {**(report().collectives or {}), "all-gather over context": {"calls": 4, "bytes": 10}}
    changed = dataclasses.replace(report(), collectives=more, peak_bytes=1100)
    with pytest.raises(ConfigError) as error:
        check([changed], kept)
    assert "context 3 times, 10 bytes, now 4 times, 10 bytes" in str(error.value)
    assert "at the peak, now" in str(error.value)
    content = json.loads(kept.read_text())
    assert content["classes"]["tiny 4x64"]["peak_bytes"] == 1000  # left as it was

    kept.write_text(json.dumps(content | {"libtpu": "0.0.1"}))
    with pytest.raises(ConfigError, match="written with libtpu 0.0.1"):
        check([report()], kept)
