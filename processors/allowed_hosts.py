"""Hosts that the settings let videos be read from, and which of them a URL names; asks nobody."""

from __future__ import annotations

from dataclasses import dataclass

from urllib3.util import Url

PORTS = {"https": 443, "http": 80}
"""Schemes, and the ports that they mean where a URL names none."""


@dataclass(frozen=True)
class AllowedHost:
    """One of ``fetch.https_hosts``."""

    entry: str
    """As it stands there."""
    host: str
    """Without its star."""
    subdomains: bool
    port: int | None
    """None: any."""

    @classmethod
    def of(cls, entry: str) -> AllowedHost:
        head, colon, tail = entry.rpartition(":")
        if not (colon and tail.isdigit() and (":" not in head or head.endswith("]"))):
            head, tail = entry, ""
        host = head.strip("[]").rstrip(".").lower()
        return cls(
            entry, host.removeprefix("*"), host.startswith("*."), int(tail) if tail else None
        )

    def matches(self, host: str, port: int) -> bool:
        if self.port not in (None, port):
            return False
        if self.subdomains:
            return host.endswith(self.host) and host != self.host
        return host == self.host

    def names(self, host: str, port: int, default_port: int) -> bool:
        """Whether it means this host and this port, and no other."""
        named = (self.port or default_port) == port
        return named and not self.subdomains and self.matches(host, port)


def host_of(url: Url) -> str:
    return (url.host or "").strip("[]").rstrip(".").lower()


def port_of(url: Url) -> int:
    return url.port or PORTS[str(url.scheme)]
