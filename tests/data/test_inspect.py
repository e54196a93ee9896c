"""Looking into a set: clips of every bucket are shown, texts do no harm, and files come whole."""

import base64
import io
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from sora_jax.data import inspect
from sora_jax.data.build import build_set
from sora_jax.data.sources import ClipSet
from sora_jax.data.summary import Summary, summarise
from sora_jax.errors import UserError
from tests.pages import Tags

HOSTILE = "</figcaption><script>alert('x')</script>&amp; \x00 \u202e" + "w" * 5000


def page(clips: ClipSet, folder: Path, **scores: np.ndarray) -> str:
    found = summarise(clips)
    found = Summary(found.buckets, found.all, scores)
    inspect.write_page(folder / "page.html", clips, inspect.shown_clips(clips), found)
    return (folder / "page.html").read_text()


def test_the_sheet_shows_clips_of_every_bucket(clip_set: ClipSet, tmp_path: Path) -> None:
    path = tmp_path / "new" / "sheet.png"
    inspect.write_sheet(path, inspect.shown_clips(clip_set), summarise(clip_set))
    sheet = np.asarray(Image.open(path))
    bands = np.split(sheet, 4)
    # Clips are of one grey level each, their number; the last of each bucket is shown.
    for band, last in zip(bands, (39, 20, 2, 8), strict=True):
        assert (band == last).all(axis=-1).sum() >= inspect.CELL_HEIGHT * 40


def test_the_page_is_whole_and_needs_no_other_file(clip_set: ClipSet, tmp_path: Path) -> None:
    text = page(clip_set, tmp_path, motion=np.arange(73.0))
    parser = Tags()
    parser.feed(text)
    assert parser.open == []
    assert len(parser.sources) == 4 + 4 + 3 + 4  # clips, at most four of each bucket
    for source in parser.sources:
        kind, _, content = source.partition(";base64,")
        assert kind == "data:image/jpeg"
        assert Image.open(io.BytesIO(base64.b64decode(content))).height == inspect.CELL_HEIGHT
    assert "73 clips, 0.0070 hours of video." in text
    assert "clip number 39" in text
    assert set(re.findall(r"https?://[^\s'<]+", text)) == set()


def test_histograms_of_the_page_hold_every_clip(clip_set: ClipSet, tmp_path: Path) -> None:
    text = page(clip_set, tmp_path, motion=np.arange(73.0), **{"<b>": np.ones(5)})
    for name, clips in (("motion", 73), ("&lt;b&gt;", 5)):
        (svg,) = re.findall(rf"<svg[^>]*><text[^>]*>{name}</text>.*?</svg>", text)
        assert sum(map(int, re.findall(r": (\d+)</title>", svg))) == clips
    assert "<b>" not in text
    assert "Scores" not in page(clip_set, tmp_path)


def test_a_hostile_caption_is_text_and_is_cut(numbers: SimpleNamespace, tmp_path: Path) -> None:
    bucket = numbers.config.buckets[1]
    clips = [numbers.clip(bucket, n, caption=c) for n, c in enumerate((HOSTILE, "日本の夜"))]
    build_set(clips, tmp_path / "<i>set", numbers.config)
    opened = ClipSet(tmp_path / "<i>set")
    text = page(opened, tmp_path)
    parser = Tags()
    parser.feed(text)
    assert parser.open == []
    assert "<script" not in text
    assert "&lt;script&gt;alert(&#x27;x&#x27;)" in text
    assert "<i>" not in text
    assert "日本の夜" in text
    assert "w" * inspect.PAGE_CHARACTERS not in text
    inspect.write_sheet(tmp_path / "s.png", inspect.shown_clips(opened), summarise(opened))
    assert Image.open(tmp_path / "s.png").width < 1000


def test_a_clip_that_cannot_be_decoded_is_told_among_the_others(
    numbers: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = numbers.config.buckets[1]
    with monkeypatch.context() as patch:
        patch.setattr("sora_jax.data.build.encode_clip", lambda *_: (b"<u>no film", "mp4"))
        build_set([numbers.clip(bucket, 0)], tmp_path / "set", numbers.config)
    text = page(ClipSet(tmp_path / "set"), tmp_path)
    assert "cannot be shown: clip 5x8x8-0 in " in text
    assert "<u>" not in text


def test_a_failure_leaves_the_page_that_was_there(
    clip_set: ClipSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = page(clip_set, tmp_path)

    def half(self: Path, content: bytes) -> int:
        with open(self, "wb") as file:
            file.write(content[:100])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(UserError, match="cannot write .*page.html: No space left on device"):
        page(clip_set, tmp_path, motion=np.arange(73.0))
    assert [file.name for file in tmp_path.iterdir()] == ["page.html"]
    assert (tmp_path / "page.html").read_text() == before
