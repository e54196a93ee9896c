"""What training on pictures as they are is worth: subjects that are fully in frame.

    python -m benchmarks.framing --output runs/framing

Makes wide and tall films of one moving body, which nothing cuts, and two sets of them: brought down
as they are, and cropped to squares. Trains experiments/framing.py on either, at equal cost, with
three seeds; what is there is gone on with. Then both make clips of captions that neither saw, from
the same noise, at sizes that the one or the other was trained at. A clip counts where every frame
shows the body of the caption, which fills half of no pixel at the edge. Intervals are over seeds
and clips. Writes benchmarks/results/framing.json and docs/framing.png.
"""

import argparse
import datetime
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from experiments.framing import FRAMES, NATIVE, SQUARE
from sora_jax.config import load_experiment
from sora_jax.data.build import SourceClip, build_set
from sora_jax.data.transforms import fit
from sora_jax.eval.modes.reading import Video, read
from sora_jax.networks import load_run, make_sampler
from sora_jax.sample.requests import Request
from sora_jax.world.caption import facts
from sora_jax.world.scene import Colour
from sora_jax.world.source import WorldSource

HERE = Path(__file__).resolve().parent
RESULT, PICTURE = HERE / "results" / "framing.json", HERE.parent / "docs" / "framing.png"
ARMS = {"native": ("framing", NATIVE), "square": ("framing:square", SQUARE)}
SEEDS = (0, 1, 2)
FILMS, FINER = 3_000, 2  # scenes to learn from, and pixels of a film to one of a clip
HELD_OUT, ASKED = 1_000_000, 96  # the first scene that is not learned from; clips of each size
SIZES = (*NATIVE, *SQUARE)
HALF = 0.5  # of a pixel at the edge
DRAWS = 2_000
SHOWN, ENLARGED = 6, 3


def films(first: int, count: int, frames: int) -> Iterator[tuple[Video, str, Colour]]:
    """Clips of single bodies in turn wide and tall, their captions, and the bodies' colours."""
    data = load_experiment("framing")
    assert data.world is not None
    for seed in range(first, first + count):
        height, width = (FINER * side for side in NATIVE[seed % len(NATIVE)])
        source = WorldSource(
            data.world, frames, height, width, data.data.fps, range(seed, seed + 1)
        )
        body = facts(source.scene(0), is_image=frames == 1)[0]
        yield source[0].video, source[0].caption, body.colour


def fitted(video: Video, sizes: Sequence[tuple[int, int]]) -> Video:
    """Brought down to the size that is nearest in shape, and cropped to it."""
    shape = video.shape[2] / video.shape[1]
    size = min(sizes, key=lambda each: abs(np.log(each[1] / each[0] / shape)))
    return np.stack([fit(frame, size) for frame in video])


def make_set(arm: str, output: Path) -> None:
    """The set of an arm, unless it is there."""
    if output.exists():
        return
    name, sizes = ARMS[arm]
    clips = (
        SourceClip(f"{frames}-{n:05d}", f"{n:05d}", caption, fitted(video, sizes), 16.0)
        for frames in FRAMES
        for n, (video, caption, _) in enumerate(films(0, FILMS, frames))
    )
    build_set(clips, output, load_experiment(name).data)


def train(arm: str, seed: int, data: Path, run: Path) -> None:
    """Both stages of a run; one that is done ends at once."""
    for stage in ("vae", "dit"):
        command = [sys.executable, "-m", "sora_jax.cli.train", "--experiment", ARMS[arm][0]]
        command += ["--data", str(data), "--workdir", str(run), "--stage", stage]
        subprocess.run([*command, "--set", f"seed={seed}"], check=True)


def is_framed(video: Video, colour: Colour) -> bool:
    """Whether every frame shows the body, away from its edges."""
    reading = read(video)
    for number in range(len(video)):
        blob = reading.blob(number, [colour])
        if blob is None:
            return False
        rows, columns = blob.amount[[0, -1]], blob.amount[:, [0, -1]]
        if max(rows.max(), columns.max()) > HALF:
            return False
    return True


def asked(size: tuple[int, int]) -> tuple[list[Request], list[Colour]]:
    """What is asked of every run at a size."""
    told = list(films(HELD_OUT, ASKED, FRAMES[-1]))
    requests = [
        Request(caption, FRAMES[-1], *size, fps=16.0, seed=n)
        for n, (_, caption, _) in enumerate(told)
    ]
    return requests, [colour for _, _, colour in told]


def framed_by(run: Path) -> tuple[dict[str, list[bool]], list[Video]]:
    """Of every size which clips of a run are framed; and the first clips of the first size."""
    sampler = make_sampler(load_run(run))
    found, shown = {}, []
    for size in SIZES:
        requests, colours = asked(size)
        videos = [sample.video for sample in sampler.generate(requests)]
        found[name_of(size)] = [is_framed(*each) for each in zip(videos, colours, strict=True)]
        shown = shown or videos[:SHOWN]
    return found, shown


def name_of(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def interval(values: np.ndarray) -> list[float]:
    """95 % of the mean of values [seeds, clips], seeds drawn anew and then clips of each."""
    generator = np.random.default_rng(0)
    seeds, clips = values.shape
    drawn = generator.integers(seeds, size=(DRAWS, seeds, 1))
    which = generator.integers(clips, size=(DRAWS, 1, clips))  # the same prompts for every seed
    means = values[drawn, which].mean((1, 2))
    return [round(float(each), 3) for each in np.quantile(means, (0.025, 0.975))]


def share(values: np.ndarray) -> dict[str, Any]:
    """The mean of values [seeds, clips], its interval, and that of each seed."""
    return {
        "share": round(float(values.mean()), 3),
        "interval": interval(values),
        "seeds": [round(float(each), 3) for each in values.mean(1)],
    }


def of_truth() -> dict[str, float]:
    """Shares of the films themselves, whole and cropped."""
    told = list(films(HELD_OUT, ASKED, FRAMES[-1]))
    return {
        arm: round(float(np.mean([is_framed(fitted(v, sizes), c) for v, _, c in told])), 3)
        for arm, (_, sizes) in ARMS.items()
    }


def draw(shown: dict[str, list[Video]], path: Path) -> None:
    """Middle frames, a row for each arm."""
    heading = 16
    height, width = (ENLARGED * side for side in SIZES[0])
    whole = Image.new("RGB", (SHOWN * (width + 4), len(shown) * (height + heading)), "white")
    for row, (name, videos) in enumerate(shown.items()):
        top = row * (height + heading)
        ImageDraw.Draw(whole).text((0, top + 2), f"trained on {name} pictures", fill="black")
        for column, video in enumerate(videos):
            frame = Image.fromarray(video[len(video) // 2]).resize((width, height), 0)
            whole.paste(frame, (column * (width + 4), top + heading))
    whole.save(path, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    output = parser.parse_args().output
    found: dict[str, list[dict[str, list[bool]]]] = {}
    shown = {}
    for arm in ARMS:
        make_set(arm, output / "sets" / arm)
    for seed, arm in itertools.product(SEEDS, ARMS):
        run = output / f"{arm}-{seed}"
        train(arm, seed, output / "sets" / arm, run)
        framed, videos = framed_by(run)
        found.setdefault(arm, []).append(framed)
        shown.setdefault(arm, videos)
    values = {
        arm: {size: np.array([each[size] for each in runs], float) for size in runs[0]}
        for arm, runs in found.items()
    }
    result = {
        "command": "python -m benchmarks.framing --output runs/framing",
        "date": datetime.date.today().isoformat(),
        "hardware": f"{os.cpu_count()} CPU cores",
        "truth": of_truth(),
        "arms": {arm: {s: share(v) for s, v in sizes.items()} for arm, sizes in values.items()},
        "native_less_square": {
            size: share(values["native"][size] - values["square"][size])
            for size in map(name_of, SIZES)
        },
    }
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    draw(shown, PICTURE)
    print(RESULT.read_text())


if __name__ == "__main__":
    main()
