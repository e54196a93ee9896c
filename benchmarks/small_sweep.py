"""A sweep of real runs on moving shapes, from the set to the law: README's commands, one by one.

    python -m benchmarks.small_sweep --output runs/small_sweep

6 budgets over 32 times the FLOPs, 5 sizes each, by two workers on one queue. What is there is gone
on with. Writes benchmarks/results/small_sweep.json: every run, the law, the largest budget as the
smaller ones predict it. `tests/test_small_sweep.py` asks of it what a sweep must show.
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

RESULT = Path(__file__).resolve().parent / "results" / "small_sweep.json"
CLIPS, WORKERS = 60_000, 2
PLAN = (
    *("--experiment=sweep", "--budgets=1.28e11:4.096e12:6", "--optimum=0.75,0.46", "--slice=cpu-2"),
    *("--sizes=5", "--few", "--depth=2", "--rule=mup"),
)
KEPT = (
    "budget",
    "flops",
    "width",
    "parameters",
    "tokens",
    "steps",
    "loss",
    "loss_error",
    "seconds",
)


def sora(*words: str | Path) -> "subprocess.Popen[bytes]":
    call = "import sys; from sora_jax.cli.main import main; sys.exit(main())"
    return subprocess.Popen([sys.executable, "-c", call, *map(str, words)])


def done(*started: "subprocess.Popen[bytes]") -> None:
    """Waits for commands.

    Raises:
        SystemExit: one failed; what it said stands above.
    """
    codes = [each.wait() for each in started]
    if any(codes):
        sys.exit("small_sweep: a command failed, see above; the same command goes on from there")


def trained(output: Path) -> dict[str, Any]:
    """All of a sweep under a directory, or what is missing of it: its fit."""
    data, vae, latents, sweep = (output / name for name in ("set", "vae", "latents", "small"))
    queue, fit = sweep / "queue", sweep / "fit.json"
    of = ("--experiment", "sweep")
    if not data.exists():
        done(sora("data", "build", *of, "--world", str(CLIPS), "--output", data))
    done(sora("train", *of, "--data", data, "--stage", "vae", "--workdir", vae))
    if not latents.exists():
        done(sora("encode", "--workdir", vae, "--data", data, "--output", latents))
    done(sora("sweep", "plan", *PLAN, "--data", latents, "--output", sweep))
    run = ("sweep", "run", "--plan", sweep / "plan.json", "--queue", queue)
    done(*(sora(*run, "--vae", vae, "--data", latents) for _ in range(WORKERS)))
    done(sora("sweep", "fit", "--input", queue / "records.jsonl", "--output", fit))
    found: dict[str, Any] = json.loads(fit.read_text())
    return found


def records(output: Path) -> list[dict[str, Any]]:
    """Of every run, in the order of the plan."""
    lines = (output / "small" / "queue" / "records.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def best_losses(runs: list[dict[str, Any]]) -> list[float]:
    """The lowest loss of each budget, from the smallest."""
    losses = defaultdict(list)
    for run in runs:
        losses[run["budget"]].append(run["loss"])
    return [min(losses[budget]) for budget in sorted(losses)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    fit, runs = trained(output), records(output)
    result = {
        "command": "python -m benchmarks.small_sweep --output runs/small_sweep",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores",
        "minutes_of_runs": round(sum(run["seconds"] for run in runs) / 60, 1),
        "best_losses": best_losses(runs),
        "held_out": fit["held_out"],
        "isoflop": fit["isoflop"] and {k: fit["isoflop"][k] for k in ("exponent", "ci")},
        "budgets": fit["budgets"],
        "laws": {
            name: {k: fit[name][k] for k in ("A", "B", "E", "alpha", "beta", "a", "physical")}
            for name in ("parametric_huber", "parametric_lad", "parametric_near")
            if name in fit
        },
        "warnings": fit["warnings"],
        "runs": [{name: run[name] for name in KEPT} for run in runs],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
