"""Segments of an MP4, joined, are the frames of all of them in their order and at their rate."""

import io
from pathlib import Path

import av
import numpy as np
import pytest

from sora_jax.data.footage import read_frames, scan_video
from sora_jax.errors import UserError
from sora_jax.sample.metadata import read_metadata
from sora_jax.sample.mp4 import Mp4Writer, join_segments


def pictures(frames: int) -> np.ndarray:
    """A bright bar that moves on in every frame, over noise that has the encoder use all it has."""
    generator = np.random.default_rng(0)
    video = generator.integers(0, 60, (frames, 32, 64, 1), np.uint8).repeat(3, -1)
    for frame, picture in enumerate(video):
        picture[:, frame % 60 : frame % 60 + 4] = 255
    return video


@pytest.mark.parametrize("fps", [24.0, 29.97, 7.3])
@pytest.mark.parametrize("lengths", [(1, 1), (7, 30, 3), (12,)])
def test_joined_segments_are_one_video(
    lengths: tuple[int, ...], fps: float, tmp_path: Path
) -> None:
    video, segments, start = pictures(sum(lengths)), [], 0
    for number, length in enumerate(lengths):
        path = tmp_path / f"{number}.mp4"
        with Mp4Writer(str(path), fps, 32, 64) as writer:
            writer.write(video[start : start + length])
        segments.append((path, length))
        start += length
    joined = tmp_path / "joined.mp4"
    join_segments(segments, str(joined), fps)
    found = np.stack(list(read_frames(joined)))
    assert found.shape == video.shape
    assert abs(found.astype(int) - video).mean() < 6
    with av.open(str(joined)) as container:
        times = [frame.time for frame in container.decode(video=0)]
    np.testing.assert_allclose(times, np.arange(len(video)) / fps, atol=1e-4 * len(video))
    if len(video) > 2:
        assert scan_video(joined).fps == pytest.approx(fps, abs=0.01)
        assert not scan_video(joined).variable_rate


def test_frames_come_in_any_pieces() -> None:
    def written(*pieces: np.ndarray) -> bytes:
        file = io.BytesIO()
        with Mp4Writer(file, 12, 32, 64) as writer:
            for piece in pieces:
                writer.write(piece)
        return file.getvalue()

    video = pictures(20)
    assert written(video) == written(video[:3], video[3:4], video[4:])


def test_joined_segments_say_what_they_are_told_to_say(tmp_path: Path) -> None:
    with Mp4Writer(str(tmp_path / "0.mp4"), 12, 32, 64, {"part": 0}) as writer:
        writer.write(pictures(5))
    segments = [(tmp_path / "0.mp4", 5)]
    join_segments(segments, str(tmp_path / "silent.mp4"), 12)
    join_segments(segments, str(tmp_path / "joined.mp4"), 12, {"task": "extend_forward"})
    assert read_metadata(tmp_path / "0.mp4") == {"part": 0}
    assert read_metadata(tmp_path / "joined.mp4") == {"task": "extend_forward"}
    with pytest.raises(UserError, match="does not say how it was made"):
        read_metadata(tmp_path / "silent.mp4")
