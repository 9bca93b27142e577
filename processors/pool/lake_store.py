"""Whether what a lake lies in answers at all, asked before libraries that try for minutes."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from urllib.parse import urlsplit

from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_fixed

from schemas.problems import Unreachable

_CONNECT_S = 5.0
_PATIENCE_S = 8.0
_PORTS = {"http": 80, "https": 443}


def require_answer(options: Mapping[str, str]) -> None:
    """`Unreachable` if a host that catalog.options name by an address takes no connection.

    Those are the endpoint of an S3-compatible store and the ``uri`` of a REST catalog. What has no
    address there, like AWS's own store, is not asked.
    """
    for name, host, port in _addresses(options):
        trying = Retrying(
            retry=retry_if_exception_type(OSError),
            stop=stop_after_delay(_PATIENCE_S),
            wait=wait_fixed(0.5),
            reraise=True,
        )
        try:
            trying(socket.create_connection, (host, port), _CONNECT_S).close()
        except OSError as error:
            raise Unreachable(
                f"the lake at {options.get('warehouse')}: {host}:{port} does not answer ({error}); "
                f"is it running, and is {name} in catalog.options right?"
            ) from None


def _addresses(options: Mapping[str, str]) -> Iterator[tuple[str, str, int]]:
    """Option, host and port of each address; what is no address is left to the catalog."""
    remote = urlsplit(str(options.get("warehouse", ""))).scheme not in ("", "file")
    for name, value in options.items():
        if name != "uri" and not (remote and name.endswith(".endpoint")):
            continue
        text = str(value)
        try:
            parts = urlsplit(text if "://" in text else f"https://{text}")
            port = parts.port or _PORTS.get(parts.scheme)
        except ValueError:
            continue
        if parts.hostname and port:
            yield name, parts.hostname, port
