"""Predicts published training steps by the way `sora compile` predicts ours, and states the error.

    python -m benchmarks.calibration           the cases that are not in the results yet
    python -m benchmarks.calibration C1 C4     these again, from the compiled text if it is kept
    python -m benchmarks.calibration --table   the tables of the results that are there

No TPU is needed. A case takes minutes, C1 an hour of two cores; compiled texts are kept in
build/calibration. Results go to benchmarks/results/calibration.json.
"""

import dataclasses
import datetime
import importlib.metadata
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax

from benchmarks.published.cases import CASES, Case
from benchmarks.published.splash import SplashBlocks, SplashTime, splash_times
from benchmarks.published.wan import Wan
from sora_jax.pod.compiler import Memory, OutOfMemory, compile_for
from sora_jax.pod.cost import Cost, cost_of
from sora_jax.pod.report import ClassReport, Work, report_of
from sora_jax.pod.topology import Topology, open_topology
from sora_jax.podcheck import SCHEDULES

RESULT = Path(__file__).parent / "results" / "calibration.json"
KEPT = Path(__file__).resolve().parent.parent / "build" / "calibration"
FITTED = ("C2", "C4")  # one of each generation, one of attention and one of matmuls


def main(arguments: list[str]) -> None:
    """Runs what was asked for, then prints the tables."""
    kept = json.loads(RESULT.read_text()) if RESULT.exists() else {"cases": {}}
    chosen = [name for name in CASES if name not in kept["cases"]]
    if arguments:
        chosen = [name for name in arguments if name != "--table"]
    cases = kept["cases"]
    for name in chosen:
        cases[name] = result_of(CASES[name])
        cases = {known: cases[known] for known in CASES if known in cases}
        _save(cases)
    _save(cases)  # whose errors may be counted anew
    print(table(cases))
    print()
    print(error_table(errors(cases)))


def _save(cases: Mapping[str, Any]) -> None:
    written = {
        "command": "python -m benchmarks.calibration",
        "versions": _versions(),
        "cases": cases,
        "errors": errors(cases),
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in ("jax", "libtpu")}


def result_of(case: Case) -> dict[str, Any]:
    """What is kept of a case: the published figure, the prediction and its parts, or why none."""
    found: dict[str, Any] = {
        "date": datetime.date.today().isoformat(),
        "source": case.source,
        "published_seconds": case.seconds,
        "topology": case.topology,
        "slices": case.slices,
        "stands_for": case.stands_for,
        "alternative": case.alternative,
        "options": dict(case.options),
    }
    topology = open_topology(case.topology, case.slices)
    try:
        text, memory, seconds = compiled(case, topology)
    except OutOfMemory as failure:
        return found | {"failed": str(failure)}
    except jax.errors.JaxRuntimeError as failure:
        return found | {"failed": str(failure).partition("\n")[0][:300]}
    cost = cost_of(text, case.mesh(topology), topology.chip)
    kernels = kernels_of(case, topology, cost)
    found |= prediction(case, topology, memory, seconds, cost, kernels)
    found["kernel_seconds_with_other_blocks"] = [
        {
            "blocks": dataclasses.asdict(blocks),
            "seconds": sum(kernel.seconds for kernel in kernels_of(case, topology, cost, blocks)),
        }
        for blocks in case.other_blocks
    ]
    return found


def kernels_of(
    case: Case, topology: Topology, cost: Cost, instead: SplashBlocks | None = None
) -> list[SplashTime]:
    """The time of the kernels by their schedules, compiled with the flag that they depend on."""
    name = "xla_tpu_scoped_vmem_limit_kib"
    return splash_times(
        cost.kernels,
        case.model.blocks,
        case.causal,
        topology.chip,
        SCHEDULES,
        {name: case.options[name]} if name in case.options else {},
        instead,
        case.model.lengths(case.axes["context"]) if isinstance(case.model, Wan) else (),
    )


def compiled(case: Case, topology: Topology) -> tuple[str, Memory, float]:
    """The optimized text of a case, its memory, and seconds of compiling; kept for the next time,
    so that a change of the reading needs no compiling."""
    made_of = f"{case} {_versions()}"
    text, about = KEPT / f"{case.name}.hlo", KEPT / f"{case.name}.json"
    if about.exists():
        known = json.loads(about.read_text(encoding="utf-8"))
        if known["made_of"] == made_of:
            return text.read_text(encoding="utf-8"), Memory(**known["memory"]), known["seconds"]
    found = compile_for(case.lowered(case.mesh(topology)), case.options)
    KEPT.mkdir(parents=True, exist_ok=True)
    text.write_text(str(found.compiled.as_text()), encoding="utf-8")
    known = {
        "made_of": made_of,
        "memory": dataclasses.asdict(found.memory),
        "seconds": found.seconds,
    }
    about.write_text(json.dumps(known), encoding="utf-8")
    return text.read_text(encoding="utf-8"), found.memory, found.seconds


def prediction(
    case: Case,
    topology: Topology,
    memory: Memory,
    seconds: float,
    cost: Cost,
    kernels: Sequence[SplashTime],
) -> dict[str, Any]:
    """The report that our own steps get, and what it is made of."""
    chip = topology.chip
    work = Work(case.name, 0, 0, {}, 0.0, 0.0)
    report: ClassReport = report_of(
        work,
        chip,
        len(topology.devices),
        memory,
        cost,
        kernel_seconds=sum(kernel.seconds for kernel in kernels),
        compile_seconds=seconds,
    )
    assert report.step_seconds is not None
    return {
        "step_seconds": report.step_seconds,
        "parts": {
            "matmuls": report.matmul_seconds,
            "kernels": report.kernel_seconds,
            "other": report.other_seconds,
            "other_by_estimated_cycles": cost.other_cycles / chip.clock_hz,
            "collectives": report.collective_seconds,
            "exposed": report.exposed_seconds,
            "host": report.host_seconds,
        },
        "matmul_share_of_peak": cost.matmul_flops / chip.peak_flops / (report.matmul_seconds or 1),
        "kernels": [
            dataclasses.asdict(kernel)
            | {"share_of_peak": kernel.flops / chip.peak_flops / kernel.seconds}
            for kernel in kernels
        ],
        "gib": {
            "needed": report.peak_bytes / 2**30,
            "there": report.hbm_bytes / 2**30,
            "of_the_host": memory.host / 2**30,
        },
        "unknown_loops": list(cost.unknown_loops),
        "compile_seconds": round(seconds),
    }


def _low(case: Mapping[str, Any]) -> float:
    """The end of the interval at which what the compiler started early is hidden."""
    return float(case["step_seconds"]["low"])


def _with_kernels(case: Mapping[str, Any], factor: float) -> float:
    return _low(case) + (factor - 1) * float(case["parts"]["kernels"])


def _best(cases: Sequence[Mapping[str, Any]], kernels_only: bool) -> float:
    """The factor on the whole step, or on its kernels, with the least squared log of the ratio."""
    if not kernels_only:
        logs = [math.log(case["published_seconds"] / _low(case)) for case in cases]
        return math.exp(sum(logs) / len(logs))

    def loss(factor: float) -> float:
        return sum(
            math.log(_with_kernels(case, factor) / case["published_seconds"]) ** 2 for case in cases
        )

    return min((1 + step / 1000 for step in range(-500, 2001)), key=loss)


def _predicted(case: Mapping[str, Any], factor: float, kernels_only: bool) -> float:
    return _with_kernels(case, factor) if kernels_only else factor * _low(case)


def errors(cases: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Relative errors of the low end of the interval by case: as it is; with one factor fitted on
    some cases; and with one fitted on all cases but the one that is predicted."""
    known = {
        name: case
        for name, case in cases.items()
        if "step_seconds" in case and not case["alternative"]
    }
    found: dict[str, Any] = {
        "as it is": {
            name: _low(case) / case["published_seconds"] - 1 for name, case in known.items()
        }
    }
    for what, kernels_only in (("whole step", False), ("kernels", True)):
        fitted = [known[name] for name in FITTED if name in known]
        if len(fitted) < len(FITTED) or len(known) < 3:
            continue
        factor = _best(fitted, kernels_only)
        found[f"factor {factor:.3f} on the {what}, fitted on {' and '.join(FITTED)}"] = {
            name: _predicted(case, factor, kernels_only) / case["published_seconds"] - 1
            for name, case in known.items()
        }
        found[f"a factor on the {what}, fitted on all the others"] = {
            name: _predicted(
                case,
                _best([other for key, other in known.items() if key != name], kernels_only),
                kernels_only,
            )
            / case["published_seconds"]
            - 1
            for name, case in known.items()
        }
    return found


def table(cases: Mapping[str, Mapping[str, Any]]) -> str:
    """The cases as Markdown."""
    lines = [
        "| case | step | GiB a device | matmul s | kernel s | other s | collectives s (waiting) | "
        "predicted s | published s | ratio |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, case in cases.items():
        slices = f" x {case['slices']}" if case["slices"] > 1 else ""
        front = f"| {name} | {case['source']}; {case['topology']}{slices} |"
        if "failed" in case:
            lines.append(f"{front} {case['failed']} | | | | | | {case['published_seconds']} | |")
            continue
        parts, step = case["parts"], case["step_seconds"]
        moved = sum(parts["collectives"].values())
        lines.append(
            f"{front} {case['gib']['needed']:.1f} of {case['gib']['there']:.0f} | "
            f"{parts['matmuls']:.2f} | {parts['kernels']:.2f} | {parts['other']:.2f} | "
            f"{moved:.2f} ({parts['exposed']:.2f}) | {step['low']:.2f} to {step['high']:.2f} | "
            f"{case['published_seconds']} | {step['low'] / case['published_seconds']:.2f} to "
            f"{step['high'] / case['published_seconds']:.2f} |"
        )
    return "\n".join(lines)


def error_table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Errors of the low end of the interval as Markdown."""
    names = sorted({name for by_case in found.values() for name in by_case})
    lines = [
        f"| prediction | {' | '.join(names)} | mean size |",
        "|---" * (len(names) + 2) + "|",
    ]
    for what, by_case in found.items():
        mean = sum(map(abs, by_case.values())) / max(len(by_case), 1)
        shown = " | ".join(f"{by_case[name]:+.0%}" for name in names)
        lines.append(f"| {what} | {shown} | {mean:.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    main(sys.argv[1:])
