"""Whether clips of every length come out as well: the same frames, in clips of 1 to 33.

    python -m benchmarks.vae_lengths --runs runs --data sets/footage/held_out

Of every run named in RUNS that is there. Clips of several lengths show different things, and more
of a longer one moves. So the longest are cut up: pieces of a length share the frames at their
borders, so that every frame but a clip's first comes exactly once after the first of its piece,
beside the same neighbours in its latent. These are compared; as images they are all first frames.
Writes benchmarks/results/vae_lengths.json.
"""

import argparse
import datetime
import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from sora_jax.data.media import decode_record
from sora_jax.data.sources import ClipSet
from sora_jax.eval.reconstruction import (
    Video,
    bilinear_baseline,
    latent_numbers,
    psnr,
    reconstruct,
)
from sora_jax.models.vae import VAE
from sora_jax.networks import averaged_vae, experiment_of
from sora_jax.sample.generate import latent_frames
from sora_jax.sharding.mesh import make_mesh

RESULT = Path(__file__).resolve().parent / "results" / "vae_lengths.json"
RUNS = ("vae", "unjudged", "judged")
LONGEST, LENGTHS = "33x64x64", (1, 5, 9, 17, 33)


def pieces(video: Video, length: int) -> list[Video]:
    """Clips of `length` frames; where that is above 1, each begins with the last of the one before.

    Their frames but the first, or as images all, are those of `video` but its first, in order.
    """
    step = max(1, length - 1)
    starts = range(0 if length > 1 else 1, len(video) - length + 1, step)
    return [video[start : start + length] for start in starts]


def put_together(made: list[Video]) -> Video:
    """What `pieces` cut up, without its first frame."""
    return np.concatenate([each[1:] if len(each) > 1 else each for each in made])


def scores(vae: VAE, videos: list[Video], length: int) -> dict[str, float]:
    """PSNR of all frames but the first of `videos` as clips of `length`: mean over the videos."""
    cut = [pieces(video, length) for video in videos]
    flat = [piece for of_video in cut for piece in of_video]
    numbers = latent_numbers(vae, flat[0].shape)
    kept = latent_frames(vae, length)
    made = {
        "psnr_db": reconstruct(vae, flat),
        "bilinear/psnr_db": [bilinear_baseline(piece, numbers, kept) for piece in flat],
    }
    result: dict[str, float] = {"latent_numbers_a_frame": round(numbers / length, 1)}
    for name, of_all in made.items():
        each = np.split(np.array(of_all), len(videos))
        values = [
            psnr(put_together(list(a)), put_together(list(b)))
            for a, b in zip(each, cut, strict=True)
        ]
        result[name] = round(float(np.mean(values)), 2)
    return result


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    found = [name for name in RUNS if (arguments.runs / name).exists()]
    if not found:
        parser.error(f"{arguments.runs} has none of the runs {', '.join(RUNS)}: train one first")
    experiment = experiment_of(arguments.runs / found[0])
    bucket = next(each for each in experiment.data.buckets if each.name == LONGEST)
    source = ClipSet(arguments.data).source(bucket)
    videos = [decode_record(source[place]) for place in range(len(source))]
    result: dict[str, Any] = {
        "command": "python -m benchmarks.vae_lengths --runs runs --data sets/footage/held_out",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores",
        "clips": len(videos),
    }
    for name in found:
        run = arguments.runs / name
        vae, step = averaged_vae(experiment_of(run), run, make_mesh(experiment.mesh))
        result[name] = {"step": step}
        result[name] |= {f"{length}": scores(vae, videos, length) for length in LENGTHS}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
