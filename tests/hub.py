"""A stand-in for the Hugging Face hub on loopback: revisions, trees, files with Range, and every way it can fail.

    with Hub(folder) as hub:      # folder/owner/name/… are its repositories
        hub.fail = Failure(status=429, headers={"Retry-After": "1"}, times=2)
        run(..., HF_ENDPOINT=hub.url)

As on the public hub, a file's address answers with a redirect to another host, which hands out the bytes.
"""

import hashlib
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

LARGE = 1024
"""Bytes from which a file is stored as LFS, with a sha256 in the tree."""
PAGE = 4
"""Files on one page of the tree, so that turning pages is tried too."""


@dataclass
class Failure:
    """What goes wrong, where, and how often."""

    status: int = 0
    """Answer with this error; 0: fail in the ways below."""
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b'{"error": "no"}'
    where: str = ""
    """Part of the paths that fail; empty: all."""
    times: int = 10**9
    drop_after: int | None = None
    """Close the connection after so many bytes of a file."""
    stall_after: int | None = None
    """Say nothing more after so many bytes of a file."""
    flip: bool = False
    """Hand out another byte than the one that is there."""
    without_range: bool = False
    """Answer with the whole file, whatever part is asked for."""


class Hub:
    """The server; runs inside the `with`."""

    def __init__(self, root: Path) -> None:
        self.root, self.fail = root, Failure(times=0)
        self.asked: list[tuple[str, str, str]] = []
        """Method, path and Range of every request so far."""
        self.token = ""
        """If set, whoever sends another one is refused."""
        self.hurry = threading.Event()
        """Ends stalls."""
        self.slow = 0.0
        """Seconds between two kilobytes of a file."""

    @property
    def url(self) -> str:
        """For HF_ENDPOINT."""
        return f"http://127.0.0.1:{self._server.server_port}"

    def files(self, kind: str = "/cdn/") -> list[tuple[str, str]]:
        """Paths and Ranges of the requests for bytes so far."""
        return [(path, span) for method, path, span in self.asked if path.startswith(kind) and method == "GET"]

    def __enter__(self) -> "Hub":
        hub = self

        class Handler(_Handler):
            told = hub

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.hurry.set()
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    told: Hub

    def log_message(self, *_: Any) -> None:
        """Says nothing."""

    def do_HEAD(self) -> None:
        self._serve()

    def do_GET(self) -> None:
        self._serve()

    def _serve(self) -> None:
        hub, path = self.told, unquote(self.path.partition("?")[0])
        hub.asked.append((self.command, path, self.headers.get("Range", "")))
        failing = hub.fail.times > 0 and hub.fail.where in path
        if failing and hub.fail.status:
            hub.fail.times -= 1
            return self._answer(hub.fail.status, hub.fail.body, hub.fail.headers)
        given = self.headers.get("Authorization", "")
        if hub.token and given and given != f"Bearer {hub.token}" and not path.startswith("/cdn/"):
            told = {"X-Error-Message": "Invalid credentials in Authorization header"}
            return self._answer(401, b'{"error": "Invalid credentials"}', told)
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/revision/(.+)", path):
            return self._revision(hub.root / found[1])
        if found := re.fullmatch(r"/api/models/([^/]+/[^/]+)/tree/(.+)", path):
            return self._tree(hub.root / found[1], path)
        if found := re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/(.+)", path):
            return self._resolve(hub.root / found[1] / found[2], f"/cdn/{found[1]}/{found[2]}")
        if found := re.fullmatch(r"/cdn/(.+)", path):
            return self._bytes(hub.root / found[1], failing)
        return self._answer(404, b'{"error": "no such address"}')

    def _revision(self, folder: Path) -> None:
        if not folder.is_dir():
            return self._answer(401, b'{"error": "Repository not found"}', {"X-Error-Code": "RepoNotFound"})
        return self._json({"id": "/".join(folder.parts[-2:]), "sha": _commit(folder), "cardData": {"license": "mit"}})

    def _tree(self, folder: Path, path: str) -> None:
        files = [_entry(file, folder) for file in sorted(folder.rglob("*")) if file.is_file()]
        start = int(found[1]) if (found := re.search(r"cursor=(\d+)", self.path)) else 0
        more = {}
        if start + PAGE < len(files):
            more["Link"] = f'<{self.told.url}{path}?recursive=true&cursor={start + PAGE}>; rel="next"'
        self._json(files[start : start + PAGE], more)

    def _resolve(self, file: Path, address: str) -> None:
        if not file.is_file():
            return self._answer(404, b"", {"X-Error-Code": "EntryNotFound"})
        # By another name, this is another host: what belongs to the hub alone, such as a token, must not go there.
        where = f"http://localhost:{self.told._server.server_port}{address}"
        told = {"Location": where, "X-Linked-Size": str(file.stat().st_size), "X-Linked-Etag": f'"{_sha256(file)}"'}
        return self._answer(302, b"", told | {"X-Repo-Commit": "0" * 40})

    def _bytes(self, file: Path, failing: bool) -> None:
        hub = self.told
        if self.headers.get("Authorization"):
            return self._answer(400, b'{"error": "a token came to another host"}')
        content, start = file.read_bytes(), 0
        if failing and hub.fail.flip:
            hub.fail.times -= 1
            content = bytes([content[0] ^ 1]) + content[1:]
        if (span := self.headers.get("Range")) and not (failing and hub.fail.without_range):
            first, _, last = span.removeprefix("bytes=").partition("-")
            start, end = int(first), min(int(last or len(content)), len(content) - 1)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{end}/{len(content)}")
            content = content[start : end + 1]
        else:
            self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{_sha256(file)}"')
        self.end_headers()
        if self.command != "HEAD":
            self._send(content, failing)
        return None

    def _send(self, content: bytes, failing: bool) -> None:
        hub = self.told
        cut = hub.fail.drop_after if failing else None
        stall = hub.fail.stall_after if failing else None
        if failing and (cut is not None or stall is not None):
            hub.fail.times -= 1
        for place in range(0, len(content), 1024):
            end = place + 1024
            if cut is not None and end > cut:
                self.wfile.write(content[place:cut])
                self.close_connection = True
                return
            if stall is not None and end > stall:
                hub.hurry.wait(60)
                self.close_connection = True
                return
            self.wfile.write(content[place:end])
            if hub.slow:
                self.wfile.flush()
                time.sleep(hub.slow)

    def _json(self, content: Any, headers: dict[str, str] | None = None) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"} | (headers or {}))

    def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


def _entry(file: Path, folder: Path) -> dict[str, Any]:
    size, path = file.stat().st_size, file.relative_to(folder).as_posix()
    blob = hashlib.sha1(b"blob %d\0" % size + file.read_bytes()).hexdigest()
    entry: dict[str, Any] = {"type": "file", "path": path, "size": size, "oid": blob}
    if size >= LARGE:
        entry["lfs"] = {"oid": _sha256(file), "size": size, "pointerSize": 134}
    return entry


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _commit(folder: Path) -> str:
    """Changes with any file."""
    told = json.dumps([_entry(file, folder) for file in sorted(folder.rglob("*")) if file.is_file()])
    return hashlib.sha1(told.encode()).hexdigest()
