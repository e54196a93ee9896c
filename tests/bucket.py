"""A bucket of Google Cloud Storage that is not there: what its JSON interface answers, in memory.

As much of it as gcsfs and TensorStore ask for: objects are listed, read, written under a condition
on their generation, moved and deleted, alone and in a batch
(https://cloud.google.com/storage/docs/json_api/v1).
"""

import contextlib
import http.server
import json
import re
import threading
import urllib.parse
from collections.abc import Iterator
from typing import Any

NAME = "bucket"
OBJECT = re.compile(rf"/(?:download/|upload/)?storage/v1/b/{NAME}/o/([^/?]+)(?:\?.*)?$")
MOVE = re.compile(rf"/storage/v1/b/{NAME}/o/([^/]+)/moveTo/o/([^/?]+)(?:\?.*)?$")


class Bucket:
    """Contents by name, each with the number of the write that made it."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[bytes, int]] = {}
        self.lock = threading.Lock()
        self._writes = 0

    def write(self, name: str, content: bytes, only_over: str | None = None) -> bool:
        """Whether it was written: `only_over` is the generation that there must be, 0 for none."""
        with self.lock:
            if only_over is not None and int(only_over) != self.generation(name):
                return False
            self._writes += 1
            self.objects[name] = content, self._writes
            return True

    def generation(self, name: str) -> int:
        return self.objects.get(name, (b"", 0))[1]

    def described(self, name: str) -> dict[str, Any]:
        """The resource of an object."""
        content, generation = self.objects[name]
        return {
            "kind": "storage#object",
            "bucket": NAME,
            "name": name,
            "size": str(len(content)),
            "generation": str(generation),
            "metageneration": "1",
            "updated": "2026-01-01T00:00:00.000Z",
            "timeCreated": "2026-01-01T00:00:00.000Z",
        }

    def listed(self, prefix: str, delimiter: str) -> dict[str, Any]:
        """Objects below a prefix, and what the names of others go on with up to the delimiter."""
        items, prefixes = [], set()
        with self.lock:
            for name in sorted(self.objects):
                if not name.startswith(prefix):
                    continue
                head, found, _ = name[len(prefix) :].partition(delimiter or "\0")
                if found and delimiter:
                    prefixes.add(prefix + head + delimiter)
                else:
                    items.append(self.described(name))
        return {"kind": "storage#objects", "items": items, "prefixes": sorted(prefixes)}


class _Handler(http.server.BaseHTTPRequestHandler):
    bucket: Bucket
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        found, query = OBJECT.match(self.path), self._query()
        if not found and re.search(rf"/b/{NAME}/o(\?|$)", self.path):
            listed = self.bucket.listed(query.get("prefix", ""), query.get("delimiter", ""))
            return self._answer(200, listed)
        if not found:
            return self._answer(200 if re.search(rf"/b/{NAME}(\?|$)", self.path) else 404, {})
        name = urllib.parse.unquote(found[1])
        with self.bucket.lock:
            if name not in self.bucket.objects:
                return self._answer(404, {"error": {"code": 404}})
            content, generation = self.bucket.objects[name]
            resource = self.bucket.described(name)
        if query.get("alt") != "media":
            return self._answer(200, resource)
        return self._content(content, generation, query)

    def _content(self, content: bytes, generation: int, query: dict[str, str]) -> None:
        if str(generation) == query.get("ifGenerationNotMatch"):
            return self._answer(304, b"")
        headers = {"x-goog-generation": str(generation)}
        wanted = re.match(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            return self._answer(200, content, headers)
        start, stop = int(wanted[1]), int(wanted[2] or len(content) - 1) + 1
        part = content[start:stop]
        headers["Content-Range"] = f"bytes {start}-{start + len(part) - 1}/{len(content)}"
        return self._answer(206, part, headers)

    def do_POST(self) -> None:
        body, query = self._body(), self._query()
        move = MOVE.match(self.path)
        if move:
            return self._move(*map(urllib.parse.unquote, move.groups()))
        if self.path.startswith("/batch/"):
            return self._batch(body)
        name, content = query.get("name", ""), body
        if query.get("uploadType") == "resumable":  # in one go: nothing here is of two pieces
            there = urllib.parse.urlencode({"uploadType": "media", "name": name})
            path = f"/upload/storage/v1/b/{NAME}/o?{there}"
            return self._answer(200, b"", {"Location": f"http://{self.headers['Host']}{path}"})
        if query.get("uploadType") == "multipart":
            boundary = re.search(r'boundary="?([^";]+)', self.headers["Content-Type"])
            assert boundary
            _, about, content, _ = body.split(b"--" + boundary[1].encode(), 3)
            name = json.loads(about.split(b"\n\n", 1)[1])["name"]
            content = content.split(b"\n\n", 1)[1].removesuffix(b"\n")
        if not self.bucket.write(name, content, query.get("ifGenerationMatch")):
            return self._answer(412, {"error": {"code": 412}})
        return self._answer(200, self.bucket.described(name))

    def _move(self, source: str, target: str) -> None:
        with self.bucket.lock:
            content, _ = self.bucket.objects.pop(source, (None, 0))
        if content is None:
            return self._answer(404, {"error": {"code": 404}})
        self.bucket.write(target, content)
        return self._answer(200, self.bucket.described(target))

    def do_DELETE(self) -> None:
        found = OBJECT.match(self.path)
        assert found
        return self._answer(self._deleted(found[1]), b"")

    def _deleted(self, quoted: str) -> int:
        with self.bucket.lock:
            gone = self.bucket.objects.pop(urllib.parse.unquote(quoted), None)
        return 404 if gone is None else 204

    def _batch(self, body: bytes) -> None:
        """Several deletions, each answered by a part of the answer."""
        parts = []
        for path in re.findall(rf"DELETE \S*/b/{NAME}/o/(\S+) HTTP", body.decode()):
            status = self._deleted(path.partition("?")[0])
            parts.append(f"--batch\nContent-Type: application/http\n\nHTTP/1.1 {status} done\n\n")
        content = ("".join(parts) + "--batch--").encode()
        self._answer(200, content, {"Content-Type": "multipart/mixed; boundary=batch"})

    def _query(self) -> dict[str, str]:
        return dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))

    def _body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, status: int, content: Any, headers: dict[str, str] | None = None) -> None:
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers = {"Content-Type": "application/json", **(headers or {})}
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != 304:
            self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: Any) -> None:
        """No lines on stderr."""


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Nothing: clients ask for what they no longer wait for."""


@contextlib.contextmanager
def serving() -> Iterator[tuple[Bucket, dict[str, str]]]:
    """A bucket named NAME, and the environment of a process that finds it as gs://NAME."""
    bucket = Bucket()
    handler = type("Handler", (_Handler,), {"bucket": bucket})
    server = _Server(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield (
            bucket,
            {
                "STORAGE_EMULATOR_HOST": address,
                "TENSORSTORE_GCS_HTTP_URL": address,
                "GOOGLE_AUTH_TOKEN_FOR_TESTING": "any",
                "GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false",
                "NO_GCE_CHECK": "true",
            },
        )
    finally:
        server.shutdown()
        server.server_close()
