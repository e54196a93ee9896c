"""Compiles the steps that docs/performance.md tells of, and prints its table.

    python -m benchmarks.pod_reports              those that have no report in docs/performance yet
    python -m benchmarks.pod_reports v5p_4_720p   one of them again
    python -m benchmarks.pod_reports --table      the table of the reports that are there

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
    """One class of one experiment on one topology."""

    experiment: str
    topology: str
    shape_class: str
    slices: int = 1
    changes: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        """Arguments of `sora compile`, without the output."""
        return [
            f"--experiment={self.experiment}",
            f"--topology={self.topology}",
            f"--slices={self.slices}",
            f"--shape_class={self.shape_class}",
            *(f"--set={change}" for change in self.changes),
        ]


CASES = {
    "v5p_4_720p": Case("dit_14b:p720_on_4", "v5p:2x2x1", "1x75776"),
    "v5p_64_720p": Case("dit_14b:p720", "v5p:4x4x4", "16x75776"),
    "v5p_128_720p_2_slices": Case("dit_14b:p720_on_2_slices", "v5p:4x4x4", "32x75776", slices=2),
    "v5p_128_720p": Case("dit_14b:p720_on_128", "v5p:4x4x8", "32x75776"),
    "v5p_256_720p": Case("dit_14b:p720_on_256", "v5p:4x8x8", "64x75776"),
    "v5p_512_720p": Case("dit_14b:p720_on_512", "v5p:8x8x8", "128x75776"),
    "v5p_1024_720p": Case("dit_14b:p720_on_1024", "v5p:8x8x16", "256x75776"),
    "v5p_64_480p": Case("dit_14b", "v5p:4x4x4", "64x32768"),
    "v6e_256_720p": Case(
        "dit_14b:p720_on_256", "v6e:16x16", "64x75776", changes=("dit.remat=full",)
    ),
    "tpu7x_64_720p": Case("dit_14b:p720_on_128", "tpu7x:4x4x4", "32x75776"),
    "30b_v5p_1024_720p": Case("dit_30b:p720", "v5p:8x8x16", "256x75776"),
    "5b_v6e_256_1080p": Case("dit_5b:p1080_16x16", "v6e:16x16", "32x131072"),
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
    """The reports as Markdown."""
    lines = [
        "| case | rows x tokens | GiB a device | matmul s | kernel s | other s | collectives s | "
        "step s | MFU |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name in CASES:
        path = FOLDER / f"{name}.json"
        if path.exists():
            [found] = json.loads(path.read_text())["classes"]
            lines.append(_line(name, found))
    return "\n".join(lines)


def _line(name: str, found: dict[str, Any]) -> str:
    memory = f"{found['peak_bytes'] / 2**30:.1f} of {found['hbm_bytes'] / 2**30:.0f}"
    row = f"| {name} | {found['rows']} x {found['tokens']:,} | {memory} |"
    if not found["fits"]:
        return f"{row} does not fit | | | | | |"
    step, mfu = found["step_seconds"], found["mfu"]
    return (
        f"{row} {found['matmul_seconds']:.2f} | {found['kernel_seconds']:.2f} | "
        f"{found['other_seconds']:.2f} | {sum(found['collective_seconds'].values()):.2f} | "
        f"{step['low']:.1f} to {step['high']:.1f} | {mfu['low']:.0%} to {mfu['high']:.0%} |"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
