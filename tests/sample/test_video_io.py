"""Files of samples: they play, say how they were made, and are written whole or not at all."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sora_jax.sample.metadata import read_metadata
from sora_jax.sample.requests import Beside, Request, Sample
from sora_jax.sample.video_io import (
    contact_sheet,
    enlarged,
    playable_mp4,
    write_samples,
)


def bars(frames: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Eight saturated bars, the worst case for halved colour resolution, moving right."""
    colours = np.array([[255 * (n >> bit & 1) for bit in range(3)] for n in range(8)], np.uint8)
    image = np.repeat(colours[None, np.arange(width) * 8 // width], height, 0)
    return np.stack([np.roll(image, t, 1) for t in range(frames)])


def sample(frames: int, **changes: object) -> Sample:
    asked = Request("A Red circle, moving/left!", frames, 32, 48, fps=8.0, seed=3, given=None)
    fields = {"request": asked, "video": bars(frames), "prompt_is_cut": False}
    return Sample(**(fields | changes))


def digest(video: np.ndarray) -> str:
    return hashlib.sha256(video.tobytes()).hexdigest()


def decoded(content: bytes) -> tuple[np.ndarray, float]:
    import av

    with av.open(io.BytesIO(content)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.pix_fmt, stream.codec_context.name) == ("yuv420p", "h264")
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        return np.stack(frames), float(stream.average_rate)


def test_small_clips_keep_their_colours_in_an_mp4() -> None:
    video, fps = decoded(playable_mp4(bars(9), 8.0))
    assert video.shape == (9, 128, 192, 3)
    assert fps == 8.0
    middles = video[:, 2::4, 2::4].astype(int)  # one pixel out of each that was enlarged
    assert abs(middles - bars(9)).mean() < 6
    assert abs(middles[:, :, 3::6] - bars(9)[:, :, 3::6]).max() < 40


@pytest.mark.parametrize(
    ("height", "width", "factor"), [(32, 32, 4), (33, 47, 4), (128, 200, 1), (129, 131, 2)]
)
def test_sides_become_even_and_not_too_small(height: int, width: int, factor: int) -> None:
    large = enlarged(np.zeros((1, height, width, 3), np.uint8))
    assert large.shape == (1, factor * height, factor * width, 3)
    assert not any(side % 2 for side in large.shape[1:3])


def test_a_sample_is_a_file_with_all_that_made_it_beside_it(tmp_path: Path) -> None:
    given, other = bars(5), bars(1)
    beside = (Beside(other, 2.0),)
    asked = Request(
        "go on", 9, 32, 48, fps=12.5, seed=7, given=given, beside=beside, task="connect"
    )
    animated = sample(9, request=asked)
    provenance = {"sampling": {"steps": 4}, "checkpoint": {"run": "mine"}}
    each = [{}, {"prompt_before_expansion": "Go!"}]
    paths = write_samples([sample(1), animated], tmp_path / "new", provenance, each)
    assert [path.name for path in paths] == [
        "0000-a-red-circle-moving-left-seed3.png",
        "0001-go-seed7.mp4",
    ]
    np.testing.assert_array_equal(np.asarray(Image.open(paths[0])), bars(1)[0])
    assert decoded(paths[1].read_bytes())[1] == 12.5
    assert read_metadata(paths[1]) == {
        "task": "connect",
        "prompt": "go on",
        "prompt_before_expansion": "Go!",
        "expansion": None,
        "prompt_is_cut": False,
        "negative_prompt": "",
        "seed": 7,
        "frames": 9,
        "height": 32,
        "width": 48,
        "made_at": None,
        "fps": 12.5,
        "field": {
            "given_frames": 5,
            "given_sha256": digest(given),
            "kept_frames": 5,
            "box": None,
            "is_outside": False,
            "start_levels": [1.0],
            "given_level": 0.0,
            "noise_of": None,
            "beside": [{"frames": 1, "seconds": 2.0, "sha256": digest(other)}],
        },
        **provenance,
    }
    for path in paths:
        assert read_metadata(path) == json.loads(path.with_suffix(".json").read_text())
    assert read_metadata(tmp_path / "new" / "contact-sheet.png") == {
        "contact_sheet_of": [path.name for path in paths],
        **provenance,
    }
    assert {path.name for path in (tmp_path / "new").iterdir()} == {
        "contact-sheet.png",
        *(path.with_suffix(suffix).name for path in paths for suffix in (".json", path.suffix)),
    }


def test_a_contact_sheet_shows_every_clip() -> None:
    clips = [("red " * 40, bars(9)), ("", bars(1, 40, 24))]
    sheet = np.asarray(Image.open(io.BytesIO(contact_sheet(clips))))
    assert sheet.shape[1] >= 6 * 144
    for colour in ((255, 0, 0), (0, 255, 255)):
        rows = np.flatnonzero((sheet == colour).all(-1).any(1))
        assert len(rows) == 2 * 96  # of both clips
    assert len(np.asarray(Image.open(io.BytesIO(contact_sheet(clips[1:]))))) < len(sheet)
