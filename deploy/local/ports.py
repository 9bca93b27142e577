"""Free and taken TCP ports on loopback."""

from __future__ import annotations

import errno
import random
import socket
from collections.abc import Collection, Mapping
from pathlib import Path

import psutil

from deploy.local.errors import StackError

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Whether a server could listen on the port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: else a connection in TIME_WAIT from an earlier run looks like a holder.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                return False
            raise
    return True


def answers(port: int, timeout_s: float = 0.5) -> bool:
    """Whether something accepts connections on the port."""
    try:
        with socket.create_connection((HOST, port), timeout=timeout_s):
            return True
    except OSError:
        return False


def choose(count: int, *, but: Collection[int] = ()) -> list[int]:
    """Different free ports, none of ``but``, below the system's own range.

    Ports of that range may be gone by the time the server starts: any outgoing connection can
    take one.
    """
    below = _first_ephemeral()
    # Containers may set a range that starts low; what is above it then has to do.
    span = range(20_000, below) if below > 22_000 else range(20_000, 65_000)
    found: list[int] = []
    for port in random.sample(span, k=min(len(span), 2_000)):
        if len(found) == count:
            break
        if port not in but and is_free(port):
            found.append(port)
    if len(found) < count:
        raise StackError(f"no {count} free ports between {span.start} and {span.stop}")
    return found


def require_free(ports: Mapping[str, int]) -> None:
    """StackError naming every taken port, the setting (the key) that changes it, and its holder."""
    problems = []
    seen: dict[int, str] = {}
    for setting, port in ports.items():
        if port in seen:
            problems.append(f"port {port} is set twice: {seen[port]} and {setting}")
        elif not is_free(port):
            problems.append(
                f"port {port} is {_holder(port)}: end what holds it, or choose another "
                f"with {setting} (0: any free port)"
            )
        seen[port] = setting
    if problems:
        raise StackError("\n".join(problems))


def _first_ephemeral() -> int:
    try:
        return int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        return 32_768


def _holder(port: int) -> str:
    """``held by java (pid 17)`` if this user may know, else ``not free``."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            listens = connection.status == psutil.CONN_LISTEN
            if listens and connection.laddr.port == port and connection.pid:
                return f"held by {psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except (psutil.Error, OSError):
        pass
    return "not free"
