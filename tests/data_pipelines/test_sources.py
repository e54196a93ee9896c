"""Every kind of source lists what is there, and nothing in it is lost or ends the pipeline."""

import dataclasses
import io
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from PIL import Image

from data_pipelines import analyse as analyse_pipeline
from data_pipelines import sources, table
from data_pipelines.analyse import analyse
from data_pipelines.assets import Asset
from data_pipelines.judge import judge
from data_pipelines.table import TableError
from tests.data_pipelines.conftest import write_video

Rows = dict[str, dict[str, Any]]
KINDS = ("folder", "tars", "parquet", "tfds")
FILM = {"caption": "a drifting  pattern", "licence": "CC-BY", "camera": "one"}
PICTURE = {"caption": "another pattern", "licence": "CC0", "camera": "two"}


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Bytes of a small video and of a picture, by file name."""
    folder = tmp_path_factory.mktemp("media")
    noise = np.random.default_rng(0).integers(0, 255, (9, 20, 3), np.uint8)
    large = np.asarray(Image.fromarray(noise).resize((200, 90), Image.Resampling.BICUBIC))
    write_video(folder / "film.mp4", [large[:, n : n + 120] for n in range(0, 60, 2)], 25)
    Image.fromarray(large).save(folder / "picture.png")
    return {name: (folder / name).read_bytes() for name in ("film.mp4", "picture.png")}


def add(tar: tarfile.TarFile, name: str, contents: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(contents)
    tar.addfile(member, io.BytesIO(contents))


def write_parquet(path: Path, **columns: Any) -> str:
    pyarrow.parquet.write_table(pa.table(columns), path)
    return f"parquet:{path}"


def _folder(root: Path, media: dict[str, bytes]) -> str:
    (root / "below").mkdir()
    (root / "below" / "film.mp4").write_bytes(media["film.mp4"])
    (root / "below" / "film.json").write_text(json.dumps(FILM))
    (root / "picture.png").write_bytes(media["picture.png"])
    told = {name: value for name, value in PICTURE.items() if name != "caption"}
    (root / "picture.json").write_text(json.dumps(told))
    (root / "picture.TXT").write_text(PICTURE["caption"] + "\n")
    return f"folder:{root}"


def _tars(root: Path, media: dict[str, bytes]) -> str:
    for name, told in (("film.mp4", FILM), ("picture.png", PICTURE)):
        with tarfile.open(root / f"{name[:4]}.tar", "w") as tar:
            add(tar, f"0001.{name}", media[name])
            add(tar, "0001.json", json.dumps(told).encode())
    return f"tars:{root}/*.tar"


def _parquet(root: Path, media: dict[str, bytes]) -> str:
    for name, contents in media.items():
        (root / name).write_bytes(contents)
    told = {name: [FILM[name], PICTURE[name]] for name in FILM}
    return write_parquet(root / "t.parquet", uri=["film.mp4", str(root / "picture.png")], **told)


def _tfds(root: Path, media: dict[str, bytes]) -> str:
    import tensorflow_datasets as tfds

    text = dict.fromkeys(FILM, tfds.features.Text())
    features = tfds.features.FeaturesDict(
        {"media": tfds.features.Tensor(shape=(), dtype=np.object_), **text}
    )
    identity = tfds.core.dataset_info.DatasetIdentity(
        name="films", version=tfds.core.Version("1.0.0"), data_dir=str(root), module_name="films"
    )
    info = tfds.core.DatasetInfo(builder=identity, features=features)
    writer = tfds.core.SequentialWriter(info, 10, file_format="array_record")
    writer.initialize_splits(["train"])
    told = zip(media.values(), (FILM, PICTURE), strict=True)
    writer.add_examples({"train": [{"media": contents, **each} for contents, each in told]})
    writer.close_all()
    return f"tfds:{root}#train#media"


WRITERS: dict[str, Callable[[Path, dict[str, bytes]], str]] = {
    "folder": _folder,
    "tars": _tars,
    "parquet": _parquet,
    "tfds": _tfds,
}


@pytest.fixture(scope="module")
def tables(media: dict[str, bytes], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Rows]:
    """By kind of source, the rows of the same two files, by their kind."""
    found = {}
    for kind, write in WRITERS.items():
        output = str(tmp_path_factory.mktemp("tables") / "out")
        analyse([write(tmp_path_factory.mktemp(kind), media)], output)
        found[kind] = {row["kind"]: row for row in table.rows(output)}
    return found


def listed(source: str) -> list[Asset]:
    return [asset for unit in sources.units(source) for asset in sources.assets(unit)]


def measured(source: str, output: Path) -> dict[str, list[dict[str, Any]]]:
    """Rows of the source's table by the name of their file; proves that judge accepts it too."""
    analyse([source], str(output))
    judge(str(output), f"{output}-judged")
    rows = list(table.rows(f"{output}-judged"))
    assert len({row["clip_id"] for row in rows}) == len(rows)
    named: dict[str, list[dict[str, Any]]] = {}
    for row in sorted(rows, key=lambda row: (row["name"], row["clip_id"])):
        named.setdefault(row["name"], []).append(row)
    return named


@pytest.mark.parametrize("kind", KINDS)
def test_a_source_lists_what_is_there_and_what_is_told(
    kind: str, tables: dict[str, Rows], media: dict[str, bytes]
) -> None:
    assert set(tables[kind]) == {"video", "image"}
    for row, told in ((tables[kind]["video"], FILM), (tables[kind]["image"], PICTURE)):
        assert row["caption"] == " ".join(told["caption"].split())
        assert row["caption_kind"] == "given"
        assert row["licence"] == told["licence"]
        assert json.loads(row["provenance"]) == {"camera": told["camera"]}
        where = {name: row[name] for name in ("url", "name", "offset", "length", "record")}
        contents = b"".join(Asset(**where).chunks())  # the row is enough to find the file again
        assert contents in media.values()


@pytest.mark.parametrize("kind", KINDS[1:])
def test_a_file_is_the_same_wherever_it_lies(kind: str, tables: dict[str, Rows]) -> None:
    told_by_place = ("url", "name", "offset", "length", "record")
    for what in ("video", "image"):
        here, there = (
            {name: value for name, value in rows[what].items() if name not in told_by_place}
            for rows in (tables[kind], tables["folder"])
        )
        assert here == there
        assert len(here["asset_id"]) == 64


def test_a_hostile_name_is_a_name(tmp_path: Path, media: dict[str, bytes]) -> None:
    """The file is found again from its row, whatever its name is made of."""
    folder = tmp_path / "media"
    folder.mkdir()
    names = [b"new\nline.mp4", b"'quotes\".mp4", b"not-\xff\xfe-utf8.mp4", b"a::b#c?d%20*[e].mp4"]
    for number, name in enumerate(names):
        with open(os.fsencode(folder) + b"/" + name, "wb") as file:
            file.write(media["film.mp4"] + bytes(number))  # no two of the same bytes
    rows = measured(f"folder:{folder}", tmp_path / "out")
    assert set(rows) == {
        os.fsdecode(name).encode("utf-8", "backslashreplace").decode() for name in names
    }
    for (row,) in rows.values():
        assert row["frames"] == 30
        assert Asset(row["url"], row["name"]).content_id() == row["asset_id"]


def test_a_name_that_leaves_its_tar_stays_inside(tmp_path: Path, media: dict[str, bytes]) -> None:
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    with tarfile.open(folder / "t.tar", "w") as tar:
        add(tar, "../../film.mp4", media["film.mp4"])
        add(tar, "not-\udcff.png", media["picture.png"])
        link = tarfile.TarInfo("link.mp4")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    rows = measured(f"tars:{folder}/t.tar", tmp_path / "out")
    assert rows["t.tar/../../film.mp4"][0]["frames"] == 30
    assert rows["t.tar/not-\\udcff.png"][0]["frames"] == 1
    assert rows["t.tar/link.mp4"][0]["problem"] == "unsupported kind of file"
    assert not list(tmp_path.rglob("*.mp4"))


def test_files_that_cannot_be_used_are_rows(tmp_path: Path, media: dict[str, bytes]) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    half = media["film.mp4"][: len(media["film.mp4"]) // 2]
    for name, contents in {
        "half.mp4": half,
        "notes.pdf": b"%PDF",
        "alone.txt": b"of nothing",
        ".mp4": media["film.mp4"],
        "list.mp4": b"ffconcat version 1.0\nfile 'film'\n",
    }.items():
        (folder / name).write_bytes(contents)
    (folder / "film").write_bytes(media["film.mp4"])
    Image.new("RGB", (64, 64)).save(folder / "eps.png", "EPS")
    write_video(folder / "one.mp4", [np.full((64, 64, 3), 90, np.uint8)], 25)
    Image.new("1", (16_000, 16_000)).save(folder / "bomb.png")
    os.mkfifo(folder / "pipe.mp4")
    (folder / "gone.mp4").symlink_to("nowhere")
    rows = measured(f"folder:{folder}", tmp_path / "out")
    assert {name: [row["rule"] for row in found] for name, found in rows.items()} == {
        "half.mp4": ["unreadable"],
        "notes.pdf": ["unsupported kind of file"],
        "alone.txt": ["caption without media"],
        ".mp4": ["unsupported kind of file"],
        "list.mp4": ["unreadable"],
        "film": ["unsupported kind of file"],
        "eps.png": ["unreadable"],
        "one.mp4": ["too short"],
        "bomb.png": ["too large"],
        "pipe.mp4": ["cannot be read"],
        "gone.mp4": ["missing"],
    }
    assert rows["one.mp4"][0]["frames"] == 1
    assert rows["list.mp4"][0]["detail"] == "its content is not mov or matroska or avi"
    assert rows["eps.png"][0]["detail"] == "its content is not JPEG or PNG or WEBP"


def test_captions_that_cannot_be_used_are_rows(tmp_path: Path, media: dict[str, bytes]) -> None:
    folder = tmp_path / "media"
    folder.mkdir()
    captions = {
        "long.txt": b"word " * 20_000,
        "latin.txt": "caf\xe9".encode("latin-1"),
        "list.json": b"[1, 2]",
        "number.json": b'{"caption": 5}',
        "half.json": b'{"caption": "\\ud800"}',
        "deep.json": b"[" * 100_000,
        "broken.json": b'{"caption": ',
        "licence.json": b'{"caption": "fine", "licence": ["\\ud800"], "\\ud800": "\\ud800"}',
    }
    for number, (name, contents) in enumerate(captions.items()):
        (folder / name).write_bytes(contents)
        (folder / name).with_suffix(".mp4").write_bytes(media["film.mp4"] + bytes(number))
    (folder / "linked.mp4").write_bytes(media["film.mp4"] + bytes(20))
    (folder / "linked.txt").symlink_to("nowhere")
    rows = measured(f"folder:{folder}", tmp_path / "out")
    assert {name: found[0]["problem"] for name, found in rows.items()} == {
        "long.mp4": "",
        "latin.mp4": "caption is not UTF-8",
        "list.mp4": "caption cannot be read",
        "number.mp4": "caption cannot be read",
        "half.mp4": "caption is not UTF-8",
        "deep.mp4": "caption cannot be read",
        "broken.mp4": "caption cannot be read",
        "licence.mp4": "",
        "linked.mp4": "caption cannot be read",
    }
    assert rows["long.mp4"][0]["rule"] == "caption too long"
    assert len(rows["long.mp4"][0]["caption"]) == 99_999


def test_rows_of_a_table_that_cannot_be_used_are_rows(
    tmp_path: Path, media: dict[str, bytes]
) -> None:
    (tmp_path / "film.mp4").write_bytes(media["film.mp4"])
    latin = pa.array([b"one", b"one", b"two", b"caf\xe9", b"3", b"4"]).view(pa.string())
    uris = ["film.mp4", "film.mp4", "film.mp4", "./film.mp4", "gone.mp4", None]
    source = write_parquet(tmp_path / "t.parquet", uri=uris, caption=latin)
    rows = measured(source, tmp_path / "out")
    problems = {name: sorted(row["problem"] for row in found) for name, found in rows.items()}
    assert problems == {
        "film.mp4": ["", "same bytes", "same bytes"],
        "./film.mp4": ["caption is not UTF-8"],
        "gone.mp4": ["missing"],
        "t.parquet/row 5": ["no uri"],
    }
    assert {row["caption"] for row in rows["film.mp4"]} == {"one", "two"}


@pytest.mark.parametrize("at", ["in a file", "in a header", "between files"])
def test_a_tar_that_is_cut_off_says_so(at: str, tmp_path: Path, media: dict[str, bytes]) -> None:
    path = tmp_path / "t.tar"
    with tarfile.open(path, "w") as tar:
        add(tar, "1.mp4", media["film.mp4"])
        start = tar.offset
        add(tar, "2.mp4", media["film.mp4"] + b"2")
        add(tar, "3.mp4", media["film.mp4"] + b"3")
    cut = {"in a file": start + 1000, "in a header": start + 100, "between files": start}[at]
    path.write_bytes(path.read_bytes()[:cut])
    rows = measured(f"tars:{path}", tmp_path / "out")
    assert rows["t.tar/1.mp4"][0]["frames"] == 30
    assert rows["t.tar"][0]["problem"] == "tar cannot be read"
    if at == "in a file":
        assert rows["t.tar/2.mp4"][0]["problem"] == "cannot be read"


def test_a_file_that_is_no_tar_or_table_is_a_row(tmp_path: Path) -> None:
    for name in ("t.tar", "t.parquet"):
        (tmp_path / name).write_bytes(b"not what its name says")
    (tar,) = listed(f"tars:{tmp_path}/*.tar")
    (parquet,) = listed(f"parquet:{tmp_path}/t.parquet")
    assert tar.problem is not None
    assert tar.problem[0] == "tar cannot be read"
    assert parquet.problem is not None
    assert parquet.problem[0] == "table cannot be read from row 0"
    (other,) = listed(write_parquet(tmp_path / "other.parquet", url=["film.mp4"]))
    assert other.problem is not None
    assert "no column 'uri', only url" in other.problem[1]


def test_a_source_without_a_row_makes_a_table_without_one(tmp_path: Path) -> None:
    source = write_parquet(tmp_path / "t.parquet", uri=pa.array([], pa.string()))
    assert measured(source, tmp_path / "out") == {}


@pytest.mark.parametrize(
    ("source", "sentence"),
    [
        ("folder:{}/empty", "no file is in .*empty, nor below it"),
        ("folder:{}/gone", "nothing is at .*gone"),
        ("folder:{}/file.mp4", "is not a folder"),
        ("tars:{}/*.tar", "nothing is at"),
        ("zip:{}", "not understood: give one of folder:PLACE, tars:PLACE"),
        ("{}", "not understood"),
        ("tfds:{}", "not of the form tfds:DIR#SPLIT#FEATURE"),
        ("tfds:{}#train#media", "tfds:.* cannot be read: "),
    ],
)
def test_a_source_that_is_not_there_is_one_sentence(
    source: str, sentence: str, tmp_path: Path
) -> None:
    (tmp_path / "empty" / "below").mkdir(parents=True)
    (tmp_path / "file.mp4").write_bytes(b"")
    with pytest.raises(sources.SourceError, match=sentence) as raised:
        analyse([source.format(tmp_path)], str(tmp_path / "out"))
    assert "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["notes.txt", "finished.json", "mine.parquet", "below"])
def test_an_output_with_something_in_it_is_left_as_it_is(
    name: str, tmp_path: Path, media: dict[str, bytes]
) -> None:
    output = tmp_path / "out"
    output.mkdir()
    if name == "below":
        (output / name).mkdir()
    else:
        (output / name).write_text("mine")
    unfinished = output / "clips-00000-of-00001.parquet"
    unfinished.write_text("of a run that was ended")
    (tmp_path / "film.mp4").write_bytes(media["film.mp4"])
    with pytest.raises(TableError, match=f"{name} in it: remove it or choose another --output"):
        analyse([f"folder:{tmp_path}"], str(output))
    assert {path.name for path in output.iterdir()} == {name, unfinished.name}


def test_the_same_asset_stands_for_its_copies_in_any_order() -> None:
    one = Asset("file:///a.mp4", "a.mp4", caption="one", provenance={"row": "1"})
    found = [one, dataclasses.replace(one, caption="two"), dataclasses.replace(one, caption=None)]
    orders = [list(analyse_pipeline.first_and_copies("x", each)) for each in (found, found[::-1])]
    assert orders[0] == orders[1]
    assert orders[0][0][2] == one
