"""Reading an object over HTTPS from hosts that the settings name, and from nowhere else.

A host is resolved once and the connection goes to that very address, so that a name cannot
point elsewhere between check and use; every redirect is checked like the first URI.
A host that the settings name without a star is a store that we depend on (`processors.stores`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import socket
import ssl
import threading
from collections.abc import Generator, Iterator
from functools import cached_property
from urllib.parse import urljoin

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, LocationParseError
from urllib3.response import HTTPResponse
from urllib3.util import Url, parse_url

from processors.allowed_hosts import PORTS, AllowedHost, host_of, port_of
from processors.fetch_problem import Deadline, FetchProblem
from processors.stores import Stores, blaming
from schemas.reasons import MediaReason
from schemas.settings import FetchSettings

_CHUNK = 1 << 18
_MAX_REDIRECTS = 3
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_GONE = frozenset({404, 410})
_WORTH_RETRYING = frozenset({408, 425, 429})


class HttpReader:
    """Streams objects under one set of rules; one connection an attempt."""

    def __init__(self, settings: FetchSettings, stores: Stores) -> None:
        self._settings = settings
        self._stores = stores
        self._hosts = [AllowedHost.of(entry) for entry in settings.https_hosts]

    def chunks(self, uri: str, deadline: Deadline) -> Generator[bytes, None, None]:
        """The object's bytes, in pieces as they come.

        Raises `FetchProblem`, and `StoreOut` if that is known.
        """
        with contextlib.ExitStack() as cleanup:
            response, store = self._follow(uri, deadline, cleanup)
            cleanup.enter_context(blaming(store))
            announced = _announced_length(response)
            if announced is not None and announced > self._settings.max_bytes:
                raise FetchProblem(
                    MediaReason.TOO_LARGE,
                    f"it has {announced} bytes, and fetch.max_bytes is {self._settings.max_bytes}",
                )
            received = 0
            with _as_problems(deadline):
                while chunk := response.read1(_CHUNK):
                    deadline.remaining()
                    received += len(chunk)
                    yield chunk
            if deadline.passed:
                raise deadline.problem()
            if announced is not None and received != announced:
                raise FetchProblem(
                    MediaReason.FETCH_FAILED,
                    f"{announced} bytes were announced, and {received} came",
                    retryable=True,
                )

    def require_allowed(self, uri: str) -> None:
        """`FetchProblem` unless scheme, host and port of the URI may be read."""
        self._allowed(uri)

    def why_out(self, store: str) -> str | None:
        """Ask the host for its first page; why it is out, or None if it answers."""
        deadline = Deadline(self._settings.connect_timeout_s + self._settings.read_timeout_s)
        try:
            with contextlib.ExitStack() as cleanup:
                response = self._request(parse_url(f"{store}/"), deadline, cleanup)
        except FetchProblem as problem:
            return str(problem)
        out = response.status >= 500 or response.status in _WORTH_RETRYING
        return f"it answers {response.status}" if out else None

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        # Reading the trusted certificates takes 40 ms, and many a reader never asks a host.
        return ssl.create_default_context()

    def _follow(
        self, uri: str, deadline: Deadline, cleanup: contextlib.ExitStack
    ) -> tuple[HTTPResponse, str | None]:
        """The response to the URI or to what it redirects to, and the store that gave it."""
        for _ in range(_MAX_REDIRECTS + 1):
            url = self._allowed(uri)
            store = self._store(url)
            with self._stores.asking(store):
                response = self._request(url, deadline, cleanup)
                if response.status not in _REDIRECTS:
                    _check_response(response)
                    return response, store
            location = response.headers.get("Location")
            if not location:
                raise FetchProblem(
                    MediaReason.FETCH_FAILED, f"redirect {response.status} without a Location"
                )
            uri = urljoin(uri, location)
        raise FetchProblem(MediaReason.FETCH_FAILED, f"more than {_MAX_REDIRECTS} redirects")

    def _allowed(self, uri: str) -> Url:
        """The URI in parts, normalized, if scheme and host may be read."""
        try:
            url = parse_url(uri)
        except LocationParseError:
            raise FetchProblem(MediaReason.URI_NOT_ALLOWED, "not a URL") from None
        if url.auth:
            raise FetchProblem(MediaReason.URI_NOT_ALLOWED, "a URI may not carry credentials")
        if url.scheme == "http" and not self._settings.allow_http:
            raise FetchProblem(
                MediaReason.URI_NOT_ALLOWED, "http is off (fetch.allow_http); use https"
            )
        if url.scheme not in PORTS:
            raise FetchProblem(MediaReason.URI_NOT_ALLOWED, f"scheme {url.scheme} is not fetched")
        host, port = host_of(url), port_of(url)
        if not any(entry.matches(host, port) for entry in self._hosts):
            allowed = ", ".join(self._settings.https_hosts) or "none is set"
            raise FetchProblem(
                MediaReason.URI_NOT_ALLOWED,
                f"host {host!r} is not among the allowed ones, or not with port {port} "
                f"(fetch.https_hosts: {allowed})",
            )
        return url

    def _store(self, url: Url) -> str | None:
        """The store that the host is, if we depend on it."""
        host, port = host_of(url), port_of(url)
        if not any(entry.names(host, port, PORTS[str(url.scheme)]) for entry in self._hosts):
            return None
        return f"{url.scheme}://[{host}]:{port}" if ":" in host else f"{url.scheme}://{host}:{port}"

    def _request(self, url: Url, deadline: Deadline, cleanup: contextlib.ExitStack) -> HTTPResponse:
        host, port = host_of(url), port_of(url)
        default_port = port == PORTS[str(url.scheme)]
        shown = f"[{host}]" if ":" in host else host
        with _as_problems(deadline):
            connection = self._connect(url, host, port, deadline)
            cleanup.callback(connection.close)
            # Socket timeouts count from byte to byte: one that drips would never end.
            clock = threading.Timer(deadline.remaining(), _cut, args=(connection,))
            clock.daemon = True
            clock.start()
            cleanup.callback(clock.cancel)
            connection.request(
                "GET",
                url.request_uri,
                headers={
                    "Host": shown if default_port else f"{shown}:{port}",
                    "User-Agent": "cliplake",
                    "Accept": "*/*",
                    "Accept-Encoding": "identity",
                },
                preload_content=False,
                decode_content=False,
            )
            return connection.getresponse()

    def _connect(self, url: Url, host: str, port: int, deadline: Deadline) -> HTTPConnection:
        """A connection to the first of the host's addresses that answers."""
        problem: Exception | None = None
        for address in self._addresses(host, port):
            timeout = urllib3.Timeout(
                connect=deadline.remaining(self._settings.connect_timeout_s),
                read=deadline.remaining(self._settings.read_timeout_s),
            )
            connection = (
                HTTPSConnection(
                    address,
                    port,
                    timeout=timeout.connect_timeout,
                    ssl_context=self._tls,
                    server_hostname=host,
                )
                if url.scheme == "https"
                else HTTPConnection(address, port, timeout=timeout.connect_timeout)
            )
            try:
                connection.connect()
            except (OSError, HTTPError) as error:
                connection.close()
                problem = error
                continue
            connection.timeout = timeout.read_timeout
            connection.sock.settimeout(timeout.read_timeout)
            return connection
        assert problem is not None
        raise problem

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise FetchProblem(
                MediaReason.FETCH_FAILED,
                f"host {host!r} cannot be resolved: {error}",
                retryable=True,
            ) from None
        addresses = list(dict.fromkeys(str(entry[4][0]) for entry in found))
        if self._settings.allow_private_addresses:
            return addresses
        public = [address for address in addresses if is_public(address)]
        if not public:
            raise FetchProblem(
                MediaReason.URI_NOT_ALLOWED,
                f"host {host!r} has no public address (fetch.allow_private_addresses is off)",
            )
        return public


def is_public(address: str) -> bool:
    """Whether an IP address is on the public internet, also when it wraps another one."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address):
        inner = _wrapped(ip)
        if inner is not None:
            return is_public(str(inner))
        if ip not in _GLOBAL_UNICAST:
            return False
    if any(ip in network for network in _NOBODYS):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved


def _wrapped(ip: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """The IPv4 address to which a gateway or the system itself may take an IPv6 one."""
    if ip.ipv4_mapped or ip.sixtofour:
        return ip.ipv4_mapped or ip.sixtofour
    if ip.teredo:
        return ip.teredo[1]
    number = int(ip)
    if ip in _NAT64 or number >> 32 & 0xFCFFFFFF == _ISATAP:
        return ipaddress.IPv4Address(number & 0xFFFFFFFF)
    return None


_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_ISATAP = 0x00005EFE
"""Before an IPv4 address, at the end of any prefix: RFC 5214, 6.1."""
_GLOBAL_UNICAST = ipaddress.IPv6Network("2000::/3")
_NOBODYS = tuple(
    ipaddress.ip_network(network)
    for network in (
        # Protocol assignments, relays, documentation: Python counts some of them as global.
        "192.0.0.0/24",
        "192.88.99.0/24",
        "3fff::/20",
    )
)


def _check_response(response: HTTPResponse) -> None:
    status = response.status
    if status in _GONE:
        raise FetchProblem(MediaReason.NOT_FOUND, f"the server answered {status}")
    if status != 200:
        raise FetchProblem(
            MediaReason.FETCH_FAILED,
            f"the server answered {status}",
            retryable=status >= 500 or status in _WORTH_RETRYING,
        )
    encoding = response.headers.get("Content-Encoding", "identity").lower()
    if encoding != "identity":
        raise FetchProblem(
            MediaReason.FETCH_FAILED,
            f"the server sent the body as {encoding[:40]!r}, which was not asked for",
        )


def _announced_length(response: HTTPResponse) -> int | None:
    text = response.headers.get("Content-Length")
    return int(text) if text is not None and text.isdigit() else None


def _cut(connection: HTTPConnection) -> None:
    """Wake whoever is reading from the connection."""
    with contextlib.suppress(OSError, AttributeError):
        connection.sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _as_problems(deadline: Deadline) -> Iterator[None]:
    try:
        yield
    except FetchProblem:
        raise
    except (OSError, HTTPError) as error:
        if deadline.passed:
            raise deadline.problem() from None
        if isinstance(error, ssl.SSLCertVerificationError):
            raise FetchProblem(
                MediaReason.FETCH_FAILED,
                f"the server's certificate is refused: {error.verify_message}",
                retryable=True,
            ) from None
        # urllib3 counts a refused connection among its timeouts.
        timed_out = isinstance(
            error, TimeoutError | urllib3.exceptions.TimeoutError
        ) and not isinstance(error, urllib3.exceptions.NewConnectionError)
        raise FetchProblem(
            MediaReason.FETCH_TIMEOUT if timed_out else MediaReason.FETCH_FAILED,
            f"the connection failed: {type(error).__name__}: {error}",
            retryable=True,
        ) from None
