"""How alike clips come out to small previews of the same noise, beside previews of other seeds.

    python -m benchmarks.preview_likeness --run runs/modes

Of a run of experiments/modes.py, by captions of its world. Writes
benchmarks/results/preview_likeness.json.
"""

import argparse
import datetime
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from sora_jax.eval.examples import longest
from sora_jax.eval.modes import cases
from sora_jax.generator import Generator
from sora_jax.sample.sizes import smaller

RESULT = Path(__file__).resolve().parent / "results" / "preview_likeness.json"
PAIRS = (((40, 40), 1.25), ((48, 48), 1.5), ((24, 40), 1.25))  # of a clip, and how much smaller
SEED, CLIPS = 70_000_000, 16


def compared(generator: Generator, size: tuple[int, int], factor: float) -> dict[str, Any]:
    """Means over clips of one size."""
    experiment = generator.run.experiment
    view = cases.View(
        cases.moving(experiment.world),
        longest(experiment.data.buckets)[0].frames,
        *size,
        experiment.data.fps,
        generator.temporal,
        generator.sampler.models.cell,
    )
    requests = [cases.generate(view, SEED + number).requests[0] for number in range(CLIPS)]
    small = [smaller(request, factor) for request in requests]
    previews, samples = map(generator.sampler.generate, (small, requests))
    found = generator.likeness(previews, samples)
    means = {
        f"{kind}{name}": round(float(np.mean([each[name] for each in of_kind])), 3)
        for kind, of_kind in (("", found), ("unrelated/", [each["unrelated"] for each in found]))
        for name in ("psnr", "ssim")
    }
    sizes = [f"{each.height}x{each.width}" for each in (requests[0], small[0])]
    return {"clip": sizes[0], "preview": sizes[1], **means}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=Path, required=True)
    generator = Generator.load(parser.parse_args().run)
    result = {
        "command": "python -m benchmarks.preview_likeness --run runs/modes",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores",
        "clips": CLIPS,
        "pairs": [compared(generator, *pair) for pair in PAIRS],
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
