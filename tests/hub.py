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

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """One repository, whose files are those of a folder."""

    def __init__(self, repository: str, folder: Path) -> None:
        self.repository = repository
        self.folder = folder
        self.fetched: list[str] = []
        self.endpoint = ""

    def info(self) -> bytes:
        """What it says of the repository."""
        siblings = [
            {"rfilename": file["path"], "size": file["size"], "blobId": file["oid"]}
            for file in self._files()
        ]
        return json.dumps({"id": self.repository, "sha": REVISION, "siblings": siblings}).encode()

    def tree(self) -> bytes:
        """The files of its one revision."""
        return json.dumps(self._files()).encode()

    def _files(self) -> list[dict[str, Any]]:
        return [
            {
                "type": "file",
                "path": str(path.relative_to(self.folder)),
                "size": path.stat().st_size,
                "oid": _etag(path.read_bytes()),
            }
            for path in sorted(self.folder.rglob("*"))
            if path.is_file()
        ]


@contextmanager
def hub(repository: str, folder: Path) -> Iterator[Hub]:
    """A hub that serves while the context lasts."""
    served = Hub(repository, folder)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(served))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    served.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield served
    finally:
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
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{served.repository}/tree/"):
                body, etag = served.tree(), ""
            elif path.startswith(f"/api/models/{served.repository}"):
                body, etag = served.info(), ""
            elif path.startswith(files) and (served.folder / path[len(files) :]).is_file():
                name = path[len(files) :]
                body = (served.folder / name).read_bytes()
                etag = _etag(body)
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
                self.wfile.write(body)

        def log_message(self, format: str, *arguments: object) -> None:
            pass

    return Handler


def _etag(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()
