"""What a compiled step does on a pod: memory against the chip, an interval of time, what bounds.

The interval: `low` has every collective that the compiler started early run beside the arithmetic,
`high` has each wait for the one before. Kernels are timed by their schedule, without waits for
memory, so both ends are optimistic about them. MFU is the model's FLOPs, without what is computed
again, over the peak of the chip in that time.
"""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from sora_jax.pod.chips import Chip
from sora_jax.pod.compiler import Memory
from sora_jax.pod.cost import Cost

Interval = dict[str, float]  # low and high
GIBIBYTE = 2**30


@dataclasses.dataclass(frozen=True)
class Work:
    """What a step was asked to do, counted by hand; FLOPs are of the whole step, on all devices.

    `runs`: how often a clip needs it, where it is a chunk of one. `parts`: turns of the rows.
    `context`: devices that share a row.
    """

    name: str
    rows: int
    tokens: int
    state_bytes: Mapping[str, int]  # on a device, by kind
    model_flops: float
    hardware_flops: float
    runs: int = 1
    parts: int = 1
    context: int = 1


@dataclasses.dataclass(frozen=True)
class ClassReport:
    """One compiled step. Bytes and seconds are of a device, FLOPs of a chip.

    What was not found out, since the step does not fit, is None.
    """

    name: str
    rows: int
    tokens: int
    state_bytes: Mapping[str, int]
    temporary_bytes: int | None
    peak_bytes: int
    hbm_bytes: int
    fits: bool
    model_flops_per_chip: float
    hardware_flops_per_chip: float
    parts: int = 1  # turns that a training step takes its rows in
    context: int = 1  # devices that share a row of a training step
    runs: int = 1  # of the program, for a batch of clips; all other figures are of one
    matmul_seconds: float | None = None
    other_seconds: float | None = None
    kernel_seconds: float | None = None
    host_seconds: float | None = None
    collective_seconds: Mapping[str, float] | None = None  # by mesh axes
    exposed_seconds: float | None = None  # of collectives that wait in line with the arithmetic
    collective_bytes: Mapping[str, float] | None = None
    # Calls and bytes by kind and axes: {"all-gather over fsdp": {"calls": 4, "bytes": 1024}}.
    collectives: Mapping[str, Mapping[str, int]] | None = None
    step_seconds: Interval | None = None
    mfu: Interval | None = None
    bound: str | None = None
    compile_seconds: float | None = None


def report_of(
    work: Work,
    chip: Chip,
    devices: int,
    memory: Memory,
    cost: Cost,
    kernel_seconds: float,
    compile_seconds: float,
) -> ClassReport:
    """The report of a step that fits."""
    matmul, other = cost.matmul_cycles / chip.clock_hz, cost.other_seconds
    compute = matmul + other + kernel_seconds
    seconds: dict[str, float] = collections.defaultdict(float)
    moved: dict[str, float] = collections.defaultdict(float)
    by_kind: dict[str, dict[str, int]] = {}
    for use in cost.collectives:
        axes = "+".join(use.axes) or "none"
        seconds[axes] += use.seconds
        moved[axes] += use.bytes
        kind = by_kind.setdefault(f"{use.kind} over {axes}", {"calls": 0, "bytes": 0})
        kind["calls"] += use.calls
        kind["bytes"] += use.bytes
    total = sum(seconds.values())
    exposed = sum(use.seconds for use in cost.collectives if not use.hidden)
    host = cost.host_bytes / chip.host_bandwidth
    low, high = max(compute + exposed, total, host), compute + total + host
    flops = work.model_flops / devices
    return ClassReport(
        **_basics(work, chip, devices),
        temporary_bytes=memory.total - sum(work.state_bytes.values()),
        peak_bytes=memory.total,
        fits=memory.total <= chip.hbm_bytes,
        matmul_seconds=matmul,
        other_seconds=other,
        kernel_seconds=kernel_seconds,
        host_seconds=host,
        collective_seconds=dict(seconds),
        exposed_seconds=exposed,
        collective_bytes=dict(moved),
        collectives=dict(sorted(by_kind.items())),
        step_seconds={"low": low, "high": high},
        mfu={"low": flops / chip.peak_flops / high, "high": flops / chip.peak_flops / low},
        bound=_bound(
            {
                "matmuls": matmul,
                "other operations": other,
                "kernels": kernel_seconds,
                **{f"collectives over {axes}": s for axes, s in seconds.items()},
            }
        ),
        compile_seconds=compile_seconds,
    )


def joined(parts: Sequence[tuple[ClassReport, int]]) -> ClassReport:
    """The report of a step of several programs, each run so many times, one after another."""
    [(first, times), *others] = parts
    if not others and times == 1:
        return first
    reports = [report for report, _ in parts]
    worst = max(reports, key=lambda report: report.peak_bytes)
    basics = dataclasses.replace(
        worst,
        name=first.name,
        rows=sum(count * report.rows for report, count in parts),
        fits=all(report.fits for report in reports),
        model_flops_per_chip=sum(n * report.model_flops_per_chip for report, n in parts),
        hardware_flops_per_chip=sum(n * report.hardware_flops_per_chip for report, n in parts),
        collectives=_total([(report.collectives, n) for report, n in parts]),
    )
    if not basics.fits:
        return basics
    summed = {
        name: _total([(getattr(report, name), n) for report, n in parts])
        for name in (
            *("matmul_seconds", "other_seconds", "kernel_seconds", "host_seconds"),
            *("collective_seconds", "exposed_seconds", "collective_bytes", "step_seconds"),
        )
    }
    # FLOPs over the peak are MFU x seconds, of which the part with the FLOPs tells.
    assert first.mfu is not None
    assert first.step_seconds is not None
    at_peak = times * first.mfu["high"] * first.step_seconds["low"]
    low, high = summed["step_seconds"]["low"], summed["step_seconds"]["high"]
    return dataclasses.replace(
        basics,
        **summed,
        mfu={"low": at_peak / high, "high": at_peak / low},
        bound=first.bound,
        compile_seconds=sum(report.compile_seconds or 0.0 for report in reports),
    )


def _total(values: Sequence[tuple[Any, int]]) -> Any:
    """Sum of numbers, or of trees of them, each so many times; what one lacks counts nothing."""
    present = [(value, times) for value, times in values if value is not None]
    if not any(isinstance(value, Mapping) for value, _ in present):
        return sum(value * times for value, times in present)
    names = sorted({name for value, _ in present for name in value})
    return {name: _total([(value.get(name), n) for value, n in present]) for name in names}


def report_of_overflow(
    work: Work, chip: Chip, devices: int, needed: int, available: int
) -> ClassReport:
    """The report of a step that needs more bytes than a device has for it."""
    return ClassReport(
        **_basics(work, chip, devices) | {"hbm_bytes": available},
        temporary_bytes=needed - sum(work.state_bytes.values()),
        peak_bytes=needed,
        fits=False,
    )


def _basics(work: Work, chip: Chip, devices: int) -> dict[str, Any]:
    chips = devices // chip.devices_per_chip
    return {
        "name": work.name,
        "rows": work.rows,
        "tokens": work.tokens,
        "state_bytes": dict(work.state_bytes),
        "hbm_bytes": chip.hbm_bytes,
        "model_flops_per_chip": work.model_flops / chips,
        "hardware_flops_per_chip": work.hardware_flops / chips,
        "parts": work.parts,
        "context": work.context,
        "runs": work.runs,
    }


def _bound(parts: Mapping[str, float]) -> str:
    return max(parts, key=lambda name: parts[name])


def table(report: ClassReport) -> str:
    """Lines to read."""
    memory = ", ".join(f"{kind} {_gib(size)}" for kind, size in report.state_bytes.items())
    lines = [
        f"{report.name}: {report.rows} rows x {report.tokens} tokens"
        + (f" in {report.parts} parts" if report.parts > 1 else "")
        + (f", each over {report.context} devices" if report.context > 1 else ""),
        f"  memory    {_gib(report.peak_bytes)} of {_gib(report.hbm_bytes)} GiB a device: "
        f"{memory}, "
        f"the rest {_gib(report.temporary_bytes or 0)}"
        + (
            ""
            if report.fits
            else f"; does NOT fit, by {_gib(report.peak_bytes - report.hbm_bytes)}"
        ),
        f"  FLOPs     {report.model_flops_per_chip / 1e12:.1f} T a chip by the model, "
        f"{report.hardware_flops_per_chip / report.model_flops_per_chip:.2f} x that executed",
    ]
    if report.step_seconds is None or report.mfu is None:
        return "\n".join(lines)
    moved = ", ".join(
        f"{axes} {(report.collective_bytes or {})[axes] / 1e9:.1f} GB in {seconds:.3f} s"
        for axes, seconds in (report.collective_seconds or {}).items()
    )
    lines += [
        f"  seconds   matmuls {report.matmul_seconds:.3f}, kernels {report.kernel_seconds:.3f}, "
        f"other {report.other_seconds:.3f}, waiting for collectives {report.exposed_seconds:.3f}",
        f"  moved     {moved or 'nothing'}",
        f"  step      {report.step_seconds['low']:.3f} to {report.step_seconds['high']:.3f} s, "
        f"MFU {report.mfu['low']:.1%} to {report.mfu['high']:.1%}, bound by {report.bound}; "
        f"compiled in {report.compile_seconds:.0f} s",
    ]
    if report.runs > 1:
        low, high = (report.runs * report.step_seconds[end] for end in ("low", "high"))
        lines.append(f"  clip      {report.runs} of these, {low:.1f} to {high:.1f} s")
    return "\n".join(lines)


def _gib(size: int) -> str:
    return f"{size / GIBIBYTE:.1f}"
