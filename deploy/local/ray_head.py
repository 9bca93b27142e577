"""A Ray head on loopback: the token that lets clients in, and what they need to find it."""

from __future__ import annotations

import math
import os
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from deploy.local import ports
from deploy.local.errors import StackError
from deploy.local.parts import Part
from deploy.local.processes import last_lines
from schemas.settings import Settings

OBJECT_STORE_BYTES = 100 * 2**20
"""Frames never pass through it: micro-batches and results are small."""

_LONGEST_SOCKET = len("/session_2026-01-01_00-00-00_000000_0000000/sockets/plasma_store")
_SOCKET_LIMIT = 107
"""Bytes of a Unix socket's path (``sun_path``)."""


def ray_head(settings: Settings, stack_id: str, spare_ports: tuple[int, int, int]) -> Part:
    """The head on ``local.ray_port``. ``spare_ports``: for Ray's client server and two metrics."""
    temporary = _temporary_dir(settings, stack_id)
    log = settings.state_dir / "logs" / "ray.log"
    port = settings.local.ray_port
    client_port, dashboard_metrics, autoscaler_metrics = spare_ports

    def prepare() -> None:
        _write_token(settings)
        _make_private(temporary)

    return Part(
        name="ray",
        command=[
            *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block"),
            *("--node-ip-address", ports.HOST, "--port", str(port)),
            *("--ray-client-server-port", str(client_port)),
            *("--dashboard-agent-listen-port", "0"),
            *("--include-dashboard", str(settings.local.ray_dashboard).lower()),
            *("--include-log-monitor", "false"),
            *("--num-cpus", str(_cpus(settings))),
            *("--object-store-memory", str(OBJECT_STORE_BYTES)),
            *("--temp-dir", str(temporary), "--disable-usage-stats"),
            *("--log-style", "record", "--log-color", "false"),
        ],
        environment={
            **client_environment(settings),
            "RAY_TMPDIR": str(temporary),
            "DASHBOARD_METRIC_PORT": str(dashboard_metrics),
            "AUTOSCALER_METRIC_PORT": str(autoscaler_metrics),
        },
        log=log,
        cwd=settings.state_dir,
        prepare=prepare,
        # The port opens before the raylet is registered; this line comes after both.
        is_ready=lambda: "Ray runtime started" in last_lines(log, 40) and ports.answers(port),
    )


def client_environment(settings: Settings) -> dict[str, str]:
    """Variables with which a process on this machine can join the Ray head of the stack."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(_token_file(settings)),
        # Without it Ray replaces 127.0.0.1 by the machine's address and listens on all of them.
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def remove_temporary(settings: Settings, stack_id: str) -> None:
    """Remove Ray's sockets and sessions; the last session's logs are kept beside the others."""
    temporary = _temporary_dir(settings, stack_id)
    logs = (temporary / "session_latest" / "logs").resolve()
    kept = settings.state_dir / "logs" / "ray"
    if logs.is_dir():
        shutil.rmtree(kept, ignore_errors=True)
        shutil.move(logs, kept)
    shutil.rmtree(temporary, ignore_errors=True)


def _cpus(settings: Settings) -> int:
    # An actor that asks for more than there is would wait for ever, without an error.
    wanted = math.ceil(settings.pool.actor_limit * settings.pool.cpus_per_actor)
    return max(os.cpu_count() or 1, wanted)


def _token_file(settings: Settings) -> Path:
    return settings.state_dir / "ray.token"


def _write_token(settings: Settings) -> None:
    file = _token_file(settings)
    if not file.exists():
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_hex(32))


def _temporary_dir(settings: Settings, stack_id: str) -> Path:
    """Under the state folder, or if its path is too long for sockets, in the system's."""
    near = settings.state_dir / "ray"
    if len(os.fsencode(near)) + _LONGEST_SOCKET <= _SOCKET_LIMIT:
        return near
    return Path(tempfile.gettempdir()) / f"cliplake-{stack_id}"


def _make_private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.is_symlink() or folder.stat().st_uid != os.getuid():
        raise StackError(f"{folder} belongs to somebody else: remove it, or set TMPDIR")
