"""Prompts are expanded offline or by an endpoint, or stay as they are with the reason told."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from sora_jax.errors import ConfigError
from sora_jax.expansion import endpoint
from sora_jax.expansion.endpoint import Endpoint, ExpansionError
from sora_jax.expansion.expand import Expansion, expand, make_expander
from sora_jax.world.scene import WorldConfig

KEY = "sk-secret"


class Server(ThreadingHTTPServer):
    """Gives the answers of a list, one a request, and keeps what it was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers: list[tuple[int, bytes, dict[str, str]]] = []
        self.asked: list[tuple[dict[str, str], Any]] = []
        self.may_end = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def says(self, caption: Any) -> None:
        content = {"choices": [{"message": {"role": "assistant", "content": caption}}]}
        self.answers.append((200, json.dumps(content).encode(), {}))


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.asked.append((dict(self.headers), body | {"path": self.path}))
        if not self.server.answers:
            self.server.may_end.wait(10)  # says nothing
            return
        status, content, headers = self.server.answers.pop(0)
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield server
        server.may_end.set()
        server.shutdown()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    waited: list[float] = []
    monkeypatch.setattr(endpoint.time, "sleep", waited.append)
    return waited


def expanded(server: Server, prompt: str, timeout: float = 10.0) -> Expansion:
    asks = Endpoint(server.url, "writer", timeout=timeout)
    return expand(prompt, 0, False, asks, lambda text: len(text) < 100)


def test_an_endpoint_is_asked_once_for_a_prompt(server: Server) -> None:
    server.says(' "A shaggy dog runs\n along a beach." ')
    asks = Endpoint(server.url + "/", "writer")
    found = [expand("a dog runs", seed, False, asks, lambda text: True) for seed in (0, 1)]
    about = {"by": server.url, "model": "writer"}
    assert found == [Expansion("a dog runs", "A shaggy dog runs along a beach.", about, None)] * 2
    assert found[0].as_metadata() == {"prompt_before_expansion": "a dog runs", "expansion": about}
    ((headers, asked),) = server.asked
    assert headers["Authorization"] == f"Bearer {KEY}"
    assert (asked["path"], asked["model"]) == ("/v1/chat/completions", "writer")
    assert asked["messages"][1] == {"role": "user", "content": "a dog runs"}
    assert "video" in asked["messages"][0]["content"]


def test_a_busy_server_is_asked_again(server: Server, waits: list[float]) -> None:
    server.answers += [(429, b"slow down", {"Retry-After": "7"}), (503, b"", {})]
    server.says("a dog runs far")
    assert expanded(server, "a dog runs").after == "a dog runs far"
    assert waits == [7.0, 2.0]


def test_a_server_that_stays_busy_is_told(server: Server, waits: list[float]) -> None:
    server.answers += [(500, KEY.encode(), {})] * 9
    with pytest.raises(ExpansionError, match=r"expands no prompt \(HTTP status 500\)") as told:
        expanded(server, "a dog")
    assert (waits, len(server.asked)) == ([1.0, 2.0, 4.0, 8.0], 5)
    assert KEY not in str(told.value)


@pytest.mark.parametrize("status", [302, 307, 401, 404])
def test_a_refusal_is_told_at_once_and_no_redirect_gets_the_key(
    server: Server, waits: list[float], status: int
) -> None:
    server.answers.append((status, b"", {"Location": f"{server.url}/elsewhere"}))
    with pytest.raises(ExpansionError, match=f"HTTP status {status}.*OPENAI_API_KEY"):
        expanded(server, "a dog")
    assert (waits, len(server.asked)) == ([], 1)


@pytest.mark.parametrize(
    ("caption", "refused"),
    [
        ("A glossy circle moves left.", "the expansion lacks 'red'"),
        ("a small red circle moves right fast", "the expansion has no 'red circle moves left'"),
        ("red circle moves left " + "on " * 40, "the expansion is longer than the run reads"),
    ],
)
def test_an_expansion_that_loses_a_fact_is_taken_back(
    server: Server, caption: str, refused: str
) -> None:
    server.says(caption)
    found = expanded(server, "red circle moves left")
    assert (found.after, found.refused) == ("red circle moves left", refused)
    assert found.as_metadata()["expansion"]["refused"] == refused


@pytest.mark.parametrize(
    "content",
    [
        b"<html>",
        b"\xff",
        b"[]",
        b"[" * 100_000,
        b'{"choices": []}',
        b'{"choices": [{"message": {"content": null}}]}',
        b'{"choices": [{"message": {"content": " "}}]}',
    ],
)
def test_an_answer_of_another_form_is_told(server: Server, content: bytes) -> None:
    server.answers.append((200, content, {}))
    with pytest.raises(ExpansionError, match="answered with no caption"):
        expanded(server, "a dog")


def test_silence_is_told(server: Server) -> None:
    with pytest.raises(ExpansionError, match=r"\(nothing for 0.2 s\)"):
        expanded(server, "a dog", timeout=0.2)
    server.answers.append((200, b"{", {"Content-Length": "9"}))  # and then nothing more
    with pytest.raises(ExpansionError, match="answered with no caption"):
        expanded(server, "a dog", timeout=0.2)


def test_nobody_there_is_told(server: Server) -> None:
    server.shutdown()
    server.server_close()
    with pytest.raises(ExpansionError, match="Connection refused"):
        expanded(server, "a dog")


@pytest.mark.parametrize(
    ("where", "model", "key", "sentence"),
    [
        ("ofline", None, "", "'ofline' is neither offline nor an address"),
        ("http://", "m", "", "is neither offline nor an address"),
        ("http://h ost/v1", "m", "", "is neither offline nor an address"),
        ("http://me:secret@host/v1", "m", "", "give the key in OPENAI_API_KEY"),
        ("http://host/v1", None, "", "needs --expand_model"),
        ("http://host/v1", "m", "two\nlines", "OPENAI_API_KEY has characters"),
    ],
)
def test_mistakes_are_told(
    where: str, model: str | None, key: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(ConfigError, match=sentence) as told:
        make_expander(where, model, WorldConfig())
    assert "lines" not in str(told.value)
    assert "secret" not in str(told.value)


def test_offline_says_why_a_prompt_stays() -> None:
    offline = make_expander("offline", None, WorldConfig())
    found = expand("red circle moves left", 3, False, offline, lambda text: True)
    assert found.refused is None
    assert found.after.split()[2:6] == ["red", "circle", "moves", "left"]
    dog = expand("a dog", 3, False, offline, lambda text: True)
    assert dog.as_metadata() == {
        "prompt_before_expansion": "a dog",
        "expansion": {"by": "offline", "refused": "captions of the world have no 'dog'"},
    }
    assert expand("", 3, False, offline, lambda text: True).refused is None
