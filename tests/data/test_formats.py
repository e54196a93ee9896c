"""Media of strangers: read as what the product takes, refused as all else that decoders know."""

import ast
import dataclasses
import io
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.data.folder import folder_clips
from sora_jax.data.footage import MediaError, read_frames, read_image, scan_video
from sora_jax.data.ledger import Ledger
from sora_jax.data.media import decode_record, encode_jpeg, encode_mp4, encode_png
from sora_jax.data.schema import Record

WriteVideo = Callable[..., Path]
REPOSITORY = Path(__file__).resolve().parents[2]
VIDEO = np.random.default_rng(0).integers(0, 256, (12, 64, 96, 3), np.uint8)
PLAYLISTS = {
    "concat": "ffconcat version 1.0\nfile 'other.mp4'\n",
    "hls": "#EXTM3U\n#EXT-X-VERSION:7\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nother.mp4\n"
    "#EXT-X-ENDLIST\n",
}
REFUSED = r"unreadable \(its content is not mov or matroska or avi\)"


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".m4v", ".webm", ".mkv", ".avi"])
def test_videos_of_the_formats_that_are_taken_are_read(
    suffix: str, tmp_path: Path, write_video: WriteVideo
) -> None:
    path = write_video(tmp_path / f"clip{suffix}", VIDEO)
    assert scan_video(path).frames == len(VIDEO)
    path = path.rename(tmp_path / "clip")  # by content, not by name
    assert len(list(read_frames(path))) == len(VIDEO)


@pytest.mark.parametrize("kind", PLAYLISTS)
def test_a_playlist_opens_no_other_file(kind: str, tmp_path: Path, write_video: WriteVideo) -> None:
    write_video(tmp_path / "other.mp4", VIDEO)
    path = tmp_path / "list.m3u8"
    path.write_text(PLAYLISTS[kind])
    with av.open(str(path)) as container:  # FFmpeg would show the other file
        assert (container.format.name, len(container.streams.video)) == (kind, 1)
    with pytest.raises(MediaError, match=REFUSED):
        scan_video(path)
    path = path.rename(tmp_path / "list.mp4")
    with pytest.raises(MediaError, match="list.mp4: unreadable"):
        scan_video(path)


def test_the_ledger_says_why_a_playlist_is_no_clip(tmp_path: Path, write_video: WriteVideo) -> None:
    write_video(tmp_path / "other.mp4", VIDEO)
    (tmp_path / "list.mp4").write_text(PLAYLISTS["concat"])
    (tmp_path / "list.txt").write_text("a caption")
    config, ledger = DataConfig((Bucket(9, 32, 32),), (ShapeClass(1, 1),)), Ledger()
    assert {clip.source for clip in folder_clips(tmp_path, config, ledger)} == {"other.mp4"}
    [told] = [line for line in ledger.lines if line["source"] == "list.mp4"]
    assert told["reason"] == "unreadable"
    assert told["detail"] == "its content is not mov or matroska or avi"


@pytest.mark.parametrize("name", ["subtitles", "picture"])
def test_what_else_ffmpeg_would_open_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    if name == "subtitles":
        path.write_text("1\n00:00:01,000 --> 00:00:02,000\na\n\n2\n00:00:03,0 --> 00:00:04,0\nb\n")
    else:
        path.write_bytes(encode_png(VIDEO[0]))
    with pytest.raises(MediaError, match=REFUSED):
        scan_video(path)


def test_a_name_is_no_address(
    tmp_path: Path, write_video: WriteVideo, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    names = ["concat:a|b.mp4", "data:text,c.mp4", "subfile,,start,1,end,9,,:d.mp4"]
    for name in names:
        path = write_video(Path("x.mp4"), VIDEO).rename(name)
        assert scan_video(path).frames == len(VIDEO)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "MPO"])
def test_images_of_the_formats_that_are_taken_are_read(kind: str, tmp_path: Path) -> None:
    Image.fromarray(VIDEO[0]).save(tmp_path / "image", kind)  # phones write JPEG as MPO
    assert read_image(tmp_path / "image").shape == VIDEO[0].shape


@pytest.mark.parametrize("kind", ["EPS", "PDF", "TIFF", "BMP", "GIF", "ICO", "PPM"])
def test_an_odd_format_of_image_is_refused_whatever_its_name(kind: str, tmp_path: Path) -> None:
    Image.fromarray(VIDEO[0]).save(tmp_path / "image.png", kind)
    with pytest.raises(MediaError) as error:
        read_image(tmp_path / "image.png")
    assert error.value.reason == "unreadable"
    assert error.value.detail == "its content is not JPEG or PNG or WEBP"


def test_a_record_is_read_as_what_it_says_and_nothing_else() -> None:
    webm = io.BytesIO()
    with av.open(webm, "w", format="webm") as container:
        stream = container.add_stream("libvpx", rate=8)
        stream.width, stream.height = 96, 64
        for image in VIDEO:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode(None))
    media = {
        "png": encode_png(VIDEO[0]),
        "jpeg": encode_jpeg(VIDEO[0]),
        "mp4": encode_mp4(VIDEO, 8.0),
        "webm": webm.getvalue(),
        "concat": PLAYLISTS["concat"].encode(),
    }
    whole = Record(
        clip_id="clip",
        asset_id="asset",
        caption="a caption",
        media=b"",
        media_format="png",
        frames=1,
        height=64,
        width=96,
        fps=8.0,
    )
    for said in ("png", "jpeg", "mp4"):
        frames = len(VIDEO) if said == "mp4" else 1
        record = dataclasses.replace(whole, media_format=said, frames=frames)
        for found, content in media.items():
            stored = dataclasses.replace(record, media=content)
            if found == said:
                assert decode_record(stored).shape == (frames, 64, 96, 3)
                continue
            with pytest.raises(ValueError, match=f"{said} media cannot be decoded"):
                decode_record(stored)


def test_nothing_else_opens_media() -> None:
    """What decodes by content is called in one place, which names the formats."""
    openers = set()
    for folder in ("sora_jax", "data_pipelines"):
        for file in (REPOSITORY / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text("utf-8"))):
                if isinstance(node, ast.Call):
                    call = ast.unparse(node)
                    reads = call.startswith("av.open(") and ", 'w'" not in call
                    others = ("Image.open(", "cv2.VideoCapture(", "cv2.im", "imageio")
                    if reads or call.startswith(others):
                        openers.add(file.name)
    assert openers == {"formats.py"}
