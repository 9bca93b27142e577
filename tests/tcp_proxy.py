"""A TCP proxy on loopback for tests: it passes bytes on, or does what networks do on bad days."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

Mode = Literal["forward", "reset", "silent"]
_PIECE = 1 << 16
_TICK_S = 0.02
_RESET = struct.pack("ii", 1, 0)
"""With it as SO_LINGER, closing a socket sends RST."""


class TcpProxy:
    """Listens on ``port`` while it runs; what it does to the bytes may change at any time.

    ``reset`` ends each connection, also those that there are, with a RST; ``silent`` keeps them
    and lets nothing through. ``bytes_per_s`` limits what comes from the server.
    """

    def __init__(self, to_port: int) -> None:
        self.to_port = to_port
        self.mode: Mode = "forward"
        self.reset_after: int | None = None
        """Bytes from the server after which a connection is reset, in every mode."""
        self.bytes_per_s: float | None = None
        self.accepted = 0
        """Connections so far."""
        self._stopping = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._serving = threading.Thread(target=self._serve, daemon=True)
        self._serving.start()

    def reset(self) -> None:
        """End each connection from now on, also those that there are."""
        self.mode = "reset"

    def silence(self) -> None:
        """Keep connections, and let nothing through."""
        self.mode = "silent"

    def refuse(self) -> None:
        """Listen no more: who connects is refused."""
        self._stopping.set()
        self._serving.join()
        self._listener.close()

    def mend(self) -> None:
        """Pass everything on again, on the same port."""
        self.mode, self.bytes_per_s, self.reset_after = "forward", None, None
        if not self._stopping.is_set():
            return
        self._stopping.clear()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self._serving = threading.Thread(target=self._serve, daemon=True)
        self._serving.start()

    def _serve(self) -> None:
        self._listener.settimeout(_TICK_S)
        while not self._stopping.is_set():
            with contextlib.suppress(TimeoutError):
                client, _ = self._listener.accept()
                self.accepted += 1
                threading.Thread(target=self._relay, args=(client,), daemon=True).start()

    def _relay(self, client: socket.socket) -> None:
        with client:
            try:
                with socket.create_connection(("127.0.0.1", self.to_port)) as server:
                    self._pass_on(client, server)
            except OSError:
                _reset(client)

    def _pass_on(self, client: socket.socket, server: socket.socket) -> None:
        for each in (client, server):
            each.settimeout(_TICK_S)
        came, began = 0, time.monotonic()
        while not self._stopping.is_set():
            self._gate()
            with contextlib.suppress(TimeoutError):
                asked = client.recv(_PIECE)
                if not asked:
                    return
                self._gate()
                server.sendall(asked)
            room = _PIECE
            if self.bytes_per_s is not None:
                room = int(self.bytes_per_s * (time.monotonic() - began)) - came
            if self.reset_after is not None:
                if came >= self.reset_after:
                    raise ConnectionResetError
                room = min(room, self.reset_after - came)
            if room <= 0:
                continue
            with contextlib.suppress(TimeoutError):
                piece = server.recv(room)
                if not piece:
                    return
                came += len(piece)
                self._gate()
                client.settimeout(None)
                client.sendall(piece)
                client.settimeout(_TICK_S)
        raise ConnectionResetError

    def _gate(self) -> None:
        """Wait out a silence; what is in hand is neither passed on nor lost."""
        while self.mode == "silent" and not self._stopping.is_set():
            time.sleep(_TICK_S)
        if self.mode == "reset" or self._stopping.is_set():
            raise ConnectionResetError


def _reset(client: socket.socket) -> None:
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)


@contextmanager
def proxied(to_port: int) -> Iterator[TcpProxy]:
    """A proxy in front of a port of this machine."""
    proxy = TcpProxy(to_port)
    try:
        yield proxy
    finally:
        proxy.refuse()
