"""Captions of a model over HTTP: asked once, again where the server fails, kept in a cache."""

import base64
import http.server
import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from data_pipelines import table
from data_pipelines.analyse import analyse
from data_pipelines.caption import caption
from data_pipelines.captions import CaptionError, Endpoint
from data_pipelines.judge import judge
from data_pipelines.rules import NO_CAPTION, RULES
from data_pipelines.table import Row, TableError
from sora_jax.errors import ConfigError

COLOURS = {"red": (200, 30, 30), "green": (30, 180, 30), "blue": (30, 30, 220)}
LENIENT = [rule for rule in RULES if rule.name not in ("flat", "blocky")]


@pytest.fixture
def server() -> Iterator[SimpleNamespace]:
    """Names the colour of the pictures it is sent. `asked`: bodies; `failing`: statuses that it
    answers with first; `answer`: instead of a colour, if set."""
    state = SimpleNamespace(asked=[], failing=[], answer=None, url="")

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status = state.failing.pop() if state.failing else 200
            if status == 200:
                state.asked.append((self.path, self.headers["Authorization"], body))
            content = state.answer if state.answer is not None else colour_of(body)
            answer = json.dumps({"choices": [{"message": {"content": content}}]}).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            pass

    running = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    state.url = f"http://127.0.0.1:{running.server_port}/v1"
    yield state
    running.shutdown()
    running.server_close()


def colour_of(body: dict[str, Any]) -> str:
    _, *images = body["messages"][0]["content"]
    encoded = images[0]["image_url"]["url"].removeprefix("data:image/jpeg;base64,")
    mean = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded)))).mean((0, 1))
    return f"  something\n{list(COLOURS)[int(mean.argmax())]} "


def jpeg(colour: tuple[int, int, int]) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (64, 48), colour).save(file, "JPEG")
    return file.getvalue()


def test_each_clip_gets_its_own_caption(
    server: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    endpoint = Endpoint(server.url + "/", "a-model")
    clips = [[jpeg(colour)] * 2 for colour in COLOURS.values()]
    assert endpoint.captions(clips) == [f"something {colour}" for colour in COLOURS]
    assert {(path, key) for path, key, _ in server.asked} == {
        ("/v1/chat/completions", "Bearer secret")
    }
    assert all(len(body["messages"][0]["content"]) == 3 for _, _, body in server.asked)


def test_a_busy_server_is_asked_again(server: SimpleNamespace) -> None:
    server.failing = [503]
    assert Endpoint(server.url, "a-model").captions([[jpeg(COLOURS["red"])]]) == ["something red"]


def test_what_was_answered_is_not_asked_again(server: SimpleNamespace, tmp_path: Path) -> None:
    clips = [[jpeg(colour)] for colour in COLOURS.values()]
    first = Endpoint(server.url, "a-model", cache=str(tmp_path)).captions(clips)
    assert Endpoint(server.url, "a-model", cache=str(tmp_path)).captions(clips) == first
    assert len(server.asked) == 3
    Endpoint(server.url, "another", cache=str(tmp_path)).captions(clips[:1])
    assert len(server.asked) == 4


def test_a_wrong_address_or_key_is_one_sentence(server: SimpleNamespace) -> None:
    with pytest.raises(ConfigError, match="is no address"):
        Endpoint("localhost:8000", "a-model")
    server.failing = [401]
    with pytest.raises(CaptionError, match="does not answer .*401.*: check the address"):
        Endpoint(server.url, "a-model").captions([[jpeg(COLOURS["red"])]])


def test_an_answer_of_another_form_is_no_caption(server: SimpleNamespace) -> None:
    server.answer = ["not", "text"]
    assert Endpoint(server.url, "a-model").captions([[jpeg(COLOURS["red"])]]) == [""]


def test_only_clips_that_lack_nothing_else_are_captioned(
    server: SimpleNamespace, tmp_path: Path
) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = np.random.default_rng(0).normal(0, 12, (96, 128, 1))
    for number, (name, colour) in enumerate(COLOURS.items()):
        image = np.clip(np.roll(noise, 31 * number, axis=1) ** (number + 1) + colour, 0, 255)
        Image.fromarray(image.astype(np.uint8)).save(folder / f"{name}.png")
    (folder / "blue.txt").write_text("a caption of its own")
    Image.new("RGB", (128, 96)).save(folder / "black.png")
    Image.open(folder / "red.png").resize((100, 75)).save(folder / "red_again.png")
    analyse([f"folder:{folder}"], str(tmp_path / "measured"))
    judge(str(tmp_path / "measured"), str(tmp_path / "judged"), LENIENT)
    with pytest.raises(TableError, match="has no verdicts"):
        caption(str(tmp_path / "measured"), str(tmp_path / "c"), Endpoint(server.url, "a-model"))
    counts = caption(
        str(tmp_path / "judged"), str(tmp_path / "captioned"), Endpoint(server.url, "a-model")
    )
    assert counts == {"a-model": 2, "given": 1, "without caption": 2}
    assert len(server.asked) == 2
    judge(str(tmp_path / "captioned"), str(tmp_path / "again"), LENIENT)
    rows = {row["name"]: row for row in table.rows(str(tmp_path / "again"))}
    assert {name: row["caption"] for name, row in rows.items() if row["keep"]} == {
        "red.png": "something red",
        "green.png": "something green",
        "blue.png": "a caption of its own",
    }
    assert rows["red_again.png"]["rule"] == "duplicate"
    assert rows["black.png"]["rule"] == "dark"
    assert rows["black.png"]["failed"] == ["dark", NO_CAPTION]
    more = str(tmp_path / "more")
    counts = caption(str(tmp_path / "again"), more, Endpoint(server.url, "b-model"), every=True)
    assert counts == {"a-model": 2, "given": 1, "without caption": 2}  # by the first of each
    rows = {row["name"]: Row.of(row) for row in table.rows(more)}
    assert rows["blue.png"].every_caption() == {
        "given": "a caption of its own",
        "b-model": "something blue",
    }
    assert list(rows["red.png"].every_caption()) == ["a-model", "b-model"]
    assert rows["black.png"].every_caption() == {}
