"""Figures of the autoencoders of experiments/vae.py, out of their runs and scores.

    python -m benchmarks.vae_footage --runs runs --data sets/footage/held_out

Of runs/vae, which runs/unjudged and runs/judged went on from, these two scored by `sora vae score`
on held-out footage; and of runs/vae_world. Writes benchmarks/results/vae_footage.json,
docs/vae_pictures.png, the middle frames of held-out clips as each has them, and docs/vae_world.png,
the curves of a run against a discriminator.
"""

import argparse
import datetime
import json
import os
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
from PIL import Image, ImageDraw

from sora_jax.data.media import decode_record
from sora_jax.data.sources import ClipSet
from sora_jax.eval.reconstruction import bilinear_baseline, latent_numbers, reconstruct
from sora_jax.networks import averaged_vae, experiment_of
from sora_jax.sample.generate import latent_frames
from sora_jax.sharding.mesh import make_mesh

matplotlib.use("Agg")
HERE = Path(__file__).resolve().parent
RESULT, DOCS = HERE / "results" / "vae_footage.json", HERE.parent / "docs"
HEADING = 20  # pixels of height
SHOWN, ROWS, ENLARGED = "17x64x64", 5, 3  # clips that are drawn, of so many, so much larger
BEFORE, SCORED = "vae", ("unjudged", "judged")
MEASURES = ("psnr_db", "bilinear/psnr_db", "ssim", "lpips/st-lpips-vgg", "flicker_relative")
CURVES = {
    "psnr_db": "PSNR of the clips trained on, dB",
    "kl": "KL of a number of the latents",
    "discriminator": "loss of the discriminator",
}


def lines_of(run: Path) -> list[dict[str, Any]]:
    """What a run logged of its steps of training."""
    lines = (run / "vae" / "metrics.jsonl").read_text().splitlines()
    return [line for line in map(json.loads, lines) if "loss" in line]


def minutes_of(run: Path) -> float:
    """That its steps of training took, evaluation and saving included."""
    lines = lines_of(run)
    steps = np.diff([0, *(line["step"] for line in lines)])
    seconds = [n * line["seconds/step"] for n, line in zip(steps, lines, strict=True)]
    return round(sum(seconds) / 60, 1)


def scores_of(run: Path) -> dict[str, Any]:
    """The measures of every bucket, and what they are of."""
    metrics = json.loads((run / "vae" / "scores" / "metrics.json").read_text())
    buckets: dict[str, dict[str, float]] = {}
    for name, value in metrics.items():
        bucket, _, measure = name.partition("/")
        if measure in (*MEASURES, "clips"):
            buckets.setdefault(bucket, {})[measure] = round(value, 4)
    return {
        "step": metrics["step"],
        "minutes_of_training": minutes_of(run),
        "set": metrics["scored_on"].rpartition("(")[2].rstrip(")"),
        "buckets": buckets,
    }


def draw_curves(lines: list[dict[str, Any]], path: Path) -> None:
    """A panel for each of CURVES, over the steps; the discriminator's scores in the last."""
    figure, panels = plt.subplots(1, len(CURVES) + 1, figsize=(15, 3), layout="constrained")
    for panel, (name, title) in zip(panels, CURVES.items(), strict=False):
        panel.plot([line["step"] for line in lines], [line[name] for line in lines])
        panel.set_title(title, fontsize=9)
    for name in ("real", "reconstructed"):
        values = [line[f"discriminator/{name}"] for line in lines]
        panels[-1].plot([line["step"] for line in lines], values, label=name)
    panels[-1].set_title("scores of the discriminator", fontsize=9)
    panels[-1].legend(frameon=False)
    for panel in panels:
        panel.set_xlabel("step")
    figure.savefig(path, dpi=90)
    plt.close(figure)


def draw_pictures(runs: Path, data: Path, path: Path) -> None:
    """The middle frames of held-out clips: as they are, bilinear at as many numbers, and by the
    runs that went on without and with judges."""
    experiment = experiment_of(runs / BEFORE)
    mesh = make_mesh(experiment.mesh)
    bucket = next(each for each in experiment.data.buckets if each.name == SHOWN)
    source = ClipSet(data).source(bucket)
    places = np.linspace(0, len(source) - 1, 2 * ROWS)[1::2].astype(int)
    clips = [decode_record(source[int(place)]) for place in places]
    columns = {"true": clips}
    for name in SCORED:
        vae, _ = averaged_vae(experiment_of(runs / name), runs / name, mesh)
        columns[f"vae:{name}"] = reconstruct(vae, clips)
    numbers, latent = latent_numbers(vae, clips[0].shape), latent_frames(vae, len(clips[0]))
    columns["bilinear"] = [bilinear_baseline(clip, numbers, latent) for clip in clips]
    side = ENLARGED * bucket.height
    whole = Image.new("RGB", (len(columns) * side, ROWS * side + HEADING), "white")
    for column, (name, videos) in enumerate(columns.items()):
        ImageDraw.Draw(whole).text((column * side, 4), name, fill="black")
        for row, video in enumerate(videos):
            frame = Image.fromarray(video[len(video) // 2]).resize((side, side), 0)
            whole.paste(frame, (column * side, HEADING + row * side))
    whole.save(path, optimize=True)


def world(run: Path) -> dict[str, Any]:
    """What a run against a discriminator came to: PSNR by fifths of its steps."""
    lines = lines_of(run)
    fifths = np.array_split(np.array([line["psnr_db"] for line in lines]), 5)
    return {
        "steps": lines[-1]["step"],
        "psnr_db_by_fifths": [round(float(each.mean()), 2) for each in fifths],
        "skipped": float(sum(line["skipped"] for line in lines)),
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    runs = arguments.runs
    result: dict[str, Any] = {
        "command": "python -m benchmarks.vae_footage --runs runs --data sets/footage/held_out",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores, of the runs and of this",
        "minutes_before": minutes_of(runs / BEFORE),
        "scores": {name: scores_of(runs / name) for name in SCORED},
    }
    draw_pictures(runs, arguments.data, DOCS / "vae_pictures.png")
    if (runs / "vae_world").exists():
        result["world"] = world(runs / "vae_world")
        draw_curves(lines_of(runs / "vae_world"), DOCS / "vae_world.png")
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
