"""A model hub on loopback, with as much of its protocol as fetching a snapshot takes."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """One repository, whose files are those of a folder; weights are large files as on the hub."""

    def __init__(self, repository: str, folder: Path) -> None:
        self.repository = repository
        self.folder = folder
        self.fetched: list[str] = []
        """Files that were asked for, in order."""
        self.asked = 0
        """Requests of any kind."""
        self.endpoint = ""
        self.sizes: dict[str, int] = {}
        """What it says of a file's size in place of the truth."""
        self.held: str | None = None
        """A file of which it sends half and then waits until `go_on` is set."""
        self.holds = threading.Event()
        """Set when half of that file is sent."""
        self.go_on = threading.Event()

    def info(self) -> bytes:
        """What it says of the repository, its card's head included."""
        siblings = [
            {
                "rfilename": file["path"],
                "size": file["size"],
                "blobId": file["oid"],
                **({"lfs": {**file["lfs"], "sha256": file["lfs"]["oid"]}} if "lfs" in file else {}),
            }
            for file in self._files()
        ]
        document = {"id": self.repository, "sha": REVISION, "siblings": siblings}
        card = self.folder / "README.md"
        if card.is_file() and (head := card.read_text().split("---\n"))[0] == "":
            document["cardData"] = yaml.safe_load(head[1])
        return json.dumps(document).encode()

    def tree(self) -> bytes:
        """The files of its one revision."""
        return json.dumps(self._files()).encode()

    def _files(self) -> list[dict[str, Any]]:
        return [self._file(path) for path in sorted(self.folder.rglob("*")) if path.is_file()]

    def _file(self, path: Path) -> dict[str, Any]:
        name = str(path.relative_to(self.folder))
        size = self.sizes.get(name, path.stat().st_size)
        data = path.read_bytes()
        file: dict[str, Any] = {"type": "file", "path": name, "size": size, "oid": _sha1(data)}
        if is_large(path):
            file["lfs"] = {
                "oid": hashlib.sha256(data).hexdigest(),
                "size": size,
                "pointerSize": 130,
            }
        return file


def is_large(path: Path) -> bool:
    """Whether a hub keeps it beside its git repository."""
    return path.suffix in (".safetensors", ".bin")


@contextmanager
def hub(repository: str, folder: Path) -> Iterator[Hub]:
    """A hub that serves while the context lasts."""
    served = Hub(repository, folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
        served.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(served: Hub) -> type[BaseHTTPRequestHandler]:
    files = f"/{served.repository}/resolve/{REVISION}/"

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def _answer(self, *, with_body: bool) -> None:
            served.asked += 1
            path = self.path.partition("?")[0]
            name = path[len(files) :] if path.startswith(files) else ""
            if path.startswith(f"/api/models/{served.repository}/tree/"):
                body, etag = served.tree(), ""
            elif path.startswith(f"/api/models/{served.repository}"):
                body, etag = served.info(), ""
            elif name and (served.folder / name).is_file():
                body = (served.folder / name).read_bytes()
                large = is_large(served.folder / name)
                etag = hashlib.sha256(body).hexdigest() if large else _sha1(body)
                if with_body:
                    served.fetched.append(name)
            else:
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("X-Repo-Commit", REVISION)
            if etag:
                self.send_header("ETag", f'"{etag}"')
            self.end_headers()
            if with_body:
                self._send(body, held=bool(name) and name == served.held)

        def _send(self, body: bytes, *, held: bool) -> None:
            if held and not served.go_on.is_set():
                self.wfile.write(body[: len(body) // 2])
                self.wfile.flush()
                served.holds.set()
                served.go_on.wait(timeout=60)
                body = body[len(body) // 2 :]
            self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Handler


def _sha1(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
