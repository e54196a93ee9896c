"""Compiles the steps and the sampling that docs/performance.md tells of, and prints its tables.

    python -m benchmarks.pod_reports              those that have no report in docs/performance yet
    python -m benchmarks.pod_reports v5p_4_720p   one of them again
    python -m benchmarks.pod_reports --table      the tables of the reports that are there

No TPU is needed. A case takes one to ten minutes and up to 8 GiB.
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "performance"


@dataclasses.dataclass(frozen=True)
class Case:
    """One class of one experiment on one topology, or one program of sampling a size of clips."""

    experiment: str
    topology: str
    size: str  # rows x tokens x parts x context of a class, or frames x height x width of a clip
    slices: int = 1
    changes: tuple[str, ...] = ()
    what: str = "train"

    @property
    def command(self) -> list[str]:
        """Arguments of `sora compile`, without the output."""
        return [
            f"--experiment={self.experiment}",
            f"--topology={self.topology}",
            f"--slices={self.slices}",
            f"--what={self.what}",
            f"--{'shape_class' if self.what == 'train' else 'clip'}={self.size}",
            *(f"--set={change}" for change in self.changes),
        ]


MINUTE = "1441x1088x1920"  # of 1080p at 24 frames a second
CASES = {
    "v5p_4_720p": Case("dit_14b:p720_on_4", "v5p:2x2x1", "1x75776"),
    "v5p_64_720p": Case("dit_14b:p720", "v5p:4x4x4", "16x75776"),
    "v5p_128_720p_2_slices": Case("dit_14b:p720_on_2_slices", "v5p:4x4x4", "32x75776", slices=2),
    "v5p_128_720p": Case("dit_14b:p720_on_128", "v5p:4x4x8", "32x75776"),
    "v5p_256_720p": Case("dit_14b:p720_on_256", "v5p:4x8x8", "64x75776"),
    "v5p_512_720p": Case("dit_14b:p720_on_512", "v5p:8x8x8", "128x75776"),
    "v5p_1024_720p": Case("dit_14b:p720_on_1024", "v5p:8x8x16", "256x75776"),
    "v5p_64_480p": Case("dit_14b", "v5p:4x4x4", "64x32768"),
    **{
        f"v5p_64_720p_{policy}": Case(
            "dit_14b:p720", "v5p:4x4x4", "16x75776", changes=(f"dit.remat={policy}",)
        )
        for policy in ("none", "matmuls", "offload", "full")
    },
    "v6e_256_720p": Case("dit_14b:p720_on_256", "v6e:16x16", "64x75776"),
    "tpu7x_64_720p": Case("dit_14b:p720_on_128", "tpu7x:4x4x4", "32x75776"),
    "30m_v5p_4_720p": Case("dit_30m:p720", "v5p:2x2x1", "36x75776x3"),
    "120m_v5p_16_720p": Case("dit_120m:p720", "v5p:2x2x4", "144x75776x3"),
    "400m_v5p_32_720p": Case("dit_400m:p720", "v5p:2x4x4", "128x75776x4x1"),
    "1b_v5p_64_720p": Case("dit_1b:p720", "v5p:4x4x4", "256x75776x4x1"),
    "2b_v5p_64_720p": Case("dit_2b:p720", "v5p:4x4x4", "256x75776x4x1"),
    "30b_v5p_1024_720p": Case("dit_30b:p720_context_4", "v5p:8x8x16", "256x75776"),
    "5b_v6e_256_1080p": Case("dit_5b:p1080_16x16", "v6e:16x16", "32x131072"),
    "v5p_128_minute_sample": Case("dit_14b:minute_1080p", "v5p:4x4x8", MINUTE, what="sample"),
    "v5p_128_minute_vae_decode": Case(
        "dit_14b:minute_1080p", "v5p:4x4x8", MINUTE, what="vae_decode"
    ),
    "v5p_128_minute_vae_encode": Case(
        "dit_14b:minute_1080p", "v5p:4x4x8", MINUTE, what="vae_encode"
    ),
    "v5p_16_minute_sample": Case(
        "dit_14b:minute_1080p",
        "v5p:2x2x4",
        MINUTE,
        changes=("mesh.context=16",),
        what="sample",
    ),
    "v6e_256_minute_sample": Case(
        "dit_14b:minute_1080p",
        "v6e:16x16",
        MINUTE,
        changes=("mesh.context=256",),
        what="sample",
    ),
    "v6e_8_minute_vae_decode": Case(
        "dit_14b:minute_1080p",
        "v6e:2x4",
        MINUTE,
        changes=("mesh.context=8", "sampling.chunk=4"),
        what="vae_decode",
    ),
}


def main(arguments: list[str]) -> None:
    """Compiles what was asked for, then prints the table."""
    chosen = [name for name in CASES if not (FOLDER / f"{name}.json").exists()]
    if arguments:
        chosen = [name for name in arguments if name != "--table"]
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in chosen:
        output = FOLDER / f"{name}.json"
        command = [sys.executable, "-m", "sora_jax.cli.compile", *CASES[name].command]
        subprocess.run([*command, f"--output={output}"], check=True)
    print(table())


def table() -> str:
    """The reports as Markdown, those of training first."""
    trained = [
        "| case | rows x tokens | GiB a device | matmul s | kernel s | other s | collectives s | "
        "step s | MFU |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    sampled = [
        "| case | tokens | GiB a device | matmul s | kernel s | other s | collectives s | "
        "one run s | runs | a clip | MFU |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, case in CASES.items():
        path = FOLDER / f"{name}.json"
        if path.exists():
            [found] = json.loads(path.read_text())["classes"]
            if case.what == "train":
                trained.append(_line(name, found))
            else:
                sampled.append(_sampling_line(name, found))
    return "\n".join([*trained, "", *sampled])


def _line(name: str, found: dict[str, Any]) -> str:
    row = f"| {name} | {found['rows']} x {found['tokens']:,} | {_memory(found)} |"
    if not found["fits"]:
        return f"{row} does not fit | | | | | |"
    step = found["step_seconds"]
    ends = _span(f"{step['low']:.1f}", f"{step['high']:.1f}")
    return f"{row} {_parts(found)} | {ends} | {_mfu(found)} |"


def _sampling_line(name: str, found: dict[str, Any]) -> str:
    row = f"| {name} | {found['tokens']:,} | {_memory(found)} |"
    if not found["fits"]:
        return f"{row} does not fit | | | | | | | |"
    low, high = found["step_seconds"]["low"], found["step_seconds"]["high"]
    digits = 0 if low > 100 else 3
    runs = found["runs"]
    run = _span(f"{low:,.{digits}f}", f"{high:,.{digits}f}")
    clip = _span(_duration(runs * low), _duration(runs * high))
    return f"{row} {_parts(found, digits)} | {run} | {runs} | {clip} | {_mfu(found)} |"


def _span(low: str, high: str) -> str:
    """An interval, or one figure where both ends come to the same."""
    return low if low == high else f"{low} to {high}"


def _memory(found: dict[str, Any]) -> str:
    return f"{found['peak_bytes'] / 2**30:.1f} of {found['hbm_bytes'] / 2**30:.0f}"


def _parts(found: dict[str, Any], digits: int = 2) -> str:
    """Seconds of matmuls, kernels, other operations and collectives."""
    seconds = [found[f"{part}_seconds"] for part in ("matmul", "kernel", "other")]
    seconds.append(sum(found["collective_seconds"].values()))
    return " | ".join(f"{each:,.{digits}f}" for each in seconds)


def _mfu(found: dict[str, Any]) -> str:
    return _span(f"{found['mfu']['low']:.0%}", f"{found['mfu']['high']:.0%}")


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    return f"{seconds / 3600:.2f} h"


if __name__ == "__main__":
    main(sys.argv[1:])
