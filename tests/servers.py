"""HTTP servers on loopback for tests: they serve bytes, and misbehave where asked to."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ssl import SSLContext

Answer = Callable[[BaseHTTPRequestHandler], None]


@dataclass
class Served:
    """A running server and what it was asked for."""

    url: str
    """``http://127.0.0.1:port``, without a slash at its end."""
    requests: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    """(path with query, headers) of every request, in order."""


@contextlib.contextmanager
def serve(
    pages: Mapping[str, bytes | Answer], *, tls: SSLContext | None = None
) -> Iterator[Served]:
    """Serve ``pages`` by path: bytes as they are, or a function that writes the whole answer.

    GET and POST are answered alike; the function reads what was posted.
    """

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            served.requests.append((self.path, dict(self.headers)))
            page = pages.get(self.path.partition("?")[0])
            self.close_connection = True
            with contextlib.suppress(ConnectionError):
                if page is None:
                    answer(self, 404, b"absent")
                elif isinstance(page, bytes):
                    answer(self, 200, page)
                else:
                    page(self)

        def do_POST(self) -> None:
            self.do_GET()

        def end_headers(self) -> None:
            # Clients that keep connections have to know that this one ends.
            self.send_header("Connection", "close")
            super().end_headers()

        def log_message(self, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True)
    scheme = "https" if tls else "http"
    served = Served(f"{scheme}://127.0.0.1:{server.server_port}")
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield served
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def answer(
    handler: BaseHTTPRequestHandler,
    status: int,
    body: bytes = b"",
    *,
    length: int | None = None,
    **headers: str,
) -> None:
    """One whole answer; ``length`` announces another length than the body has."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length is None else length))
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def redirect(location: str, status: int = 302) -> Answer:
    """An answer that sends the client elsewhere."""
    return lambda handler: answer(handler, status, Location=location)


def drip(interval_s: float, pieces: int) -> Answer:
    """An answer that comes one byte at a time."""

    def write(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(pieces))
        handler.end_headers()
        for _ in range(pieces):
            handler.wfile.write(b"x")
            time.sleep(interval_s)

    return write


def failing_first(times: int, then: bytes, status: int = 503) -> Answer:
    """An answer that is an error at first."""
    left = [times]

    def write(handler: BaseHTTPRequestHandler) -> None:
        left[0] -= 1
        answer(handler, status if left[0] >= 0 else 200, b"" if left[0] >= 0 else then)

    return write


class Gate:
    """A page that answers once it is opened, and counts who waits for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._opened = threading.Event()
        self.waiting = 0
        self.most = 0
        """Who ever waited at a time."""

    def open(self) -> None:
        self._opened.set()

    def page(self, body: bytes) -> Answer:
        def write(handler: BaseHTTPRequestHandler) -> None:
            with self._lock:
                self.waiting += 1
                self.most = max(self.most, self.waiting)
            self._opened.wait(300)
            with self._lock:
                self.waiting -= 1
            answer(handler, 200, body)

        return write
