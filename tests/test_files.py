"""A file is written whole, or what was there stays."""

from pathlib import Path

import pytest

from sora_jax.errors import UserError
from sora_jax.files import keep_lines, local_path, write_file


def test_a_disk_that_is_full_leaves_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.json"
    write_file(path, b"old")

    def half(self: Path, content: bytes) -> int:
        with open(self, "wb") as file:
            file.write(content[:1])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", half)
    with pytest.raises(UserError, match="cannot write .*metrics.json: No space left on device"):
        write_file(path, b"new")
    assert [file.name for file in tmp_path.iterdir()] == ["metrics.json"]
    assert path.read_bytes() == b"old"


def test_a_place_that_cannot_be_is_a_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"old")
    with pytest.raises(UserError, match="cannot write .*x.html: "):
        write_file(tmp_path / "file" / "x.html", b"new")
    assert (tmp_path / "file").read_bytes() == b"old"


def test_an_address_is_no_path() -> None:
    assert local_path("runs/mine") == Path("runs/mine")
    with pytest.raises(UserError, match="gs://bucket/run is no path of this machine: mount the bu"):
        local_path("gs://bucket/run")


def test_lines_of_later_steps_and_one_that_was_cut_short_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    keep_lines(path, 3)
    assert not path.exists()
    path.write_text('{"step": 2}\n{"step": 4}\n{"step": 3}\n{"st')
    keep_lines(path, 3)
    assert path.read_text() == '{"step": 2}\n{"step": 3}\n'
