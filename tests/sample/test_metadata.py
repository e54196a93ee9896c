"""What a file says of how it was made is read back as it was, also from copies."""

import io
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from sora_jax.data.media import encode_png
from sora_jax.errors import UserError
from sora_jax.sample.metadata import as_comment, read_metadata
from sora_jax.sample.video_io import playable_mp4

VIDEO = np.random.default_rng(0).integers(0, 256, (5, 32, 48, 3), np.uint8)
SAID: dict[str, Any] = {
    "prompt": "é 漢字 \U0001f98a \"quoted\" 'so' = ; # \\ \n\t\0 \ud800 {} [",
    "fps": 29.97,
    "expansion": None,
    "field": {"noise_levels": [[1.0, 0.0]] * 2000},
}


def written(tmp_path: Path, suffix: str) -> Path:
    path = tmp_path / f"sample{suffix}"
    said = encode_png(VIDEO[0], as_comment(SAID)) if suffix == ".png" else None
    path.write_bytes(said or playable_mp4(VIDEO, 8.0, SAID))
    return path


@pytest.mark.parametrize("suffix", [".mp4", ".png"])
def test_metadata_is_read_as_it_was_given(suffix: str, tmp_path: Path) -> None:
    found = read_metadata(written(tmp_path, suffix))
    assert found == SAID
    assert list(found) == list(SAID)


def test_metadata_changes_no_pixel_and_goes_into_equal_bytes(tmp_path: Path) -> None:
    picture = written(tmp_path, ".png")
    np.testing.assert_array_equal(np.asarray(Image.open(picture)), VIDEO[0])
    plain, said = playable_mp4(VIDEO, 8.0), playable_mp4(VIDEO, 8.0, SAID)
    frames = []
    for content in (plain, said):
        with av.open(io.BytesIO(content)) as container:
            frames.append([frame.to_ndarray() for frame in container.decode(video=0)])
    np.testing.assert_array_equal(*frames)
    assert said == playable_mp4(VIDEO, 8.0, SAID)
    assert encode_png(VIDEO[0], "x") == encode_png(VIDEO[0], "x")


def test_the_chunk_of_a_picture_is_international_text_before_the_pixels(tmp_path: Path) -> None:
    content = written(tmp_path, ".png").read_bytes()
    assert content.index(b"iTXtComment\0") < content.index(b"IDAT")
    assert b"iTXt" not in encode_png(VIDEO[0])


@pytest.mark.parametrize("suffix", [".mp4", ".mov", ".mkv"])
def test_metadata_survives_a_copy_into_another_container(suffix: str, tmp_path: Path) -> None:
    """As `ffmpeg -i in -c copy out` makes it: packets and global metadata."""
    copy = tmp_path / f"copy{suffix}"
    with av.open(str(written(tmp_path, ".mp4"))) as source, av.open(str(copy), "w") as target:
        target.metadata.update(source.metadata)
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                target.mux(packet)
    assert read_metadata(copy) == SAID


def test_a_file_that_says_nothing_is_told(tmp_path: Path) -> None:
    cases = {
        "plain.png": encode_png(VIDEO[0]),
        "other.png": encode_png(VIDEO[0], "made by hand"),
        "list.png": encode_png(VIDEO[0], "[1]"),
        "deep.png": encode_png(VIDEO[0], "[" * 100_000),
        "plain.mp4": playable_mp4(VIDEO, 8.0),
    }
    for name, content in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name} does not say how it was made"):
            read_metadata(tmp_path / name)
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    (tmp_path / "empty.mp4").write_bytes(b"")
    for name in ("broken.png", "empty.mp4", "missing.mp4"):
        with pytest.raises(UserError, match=f"cannot read the metadata of .*{name}"):
            read_metadata(tmp_path / name)
