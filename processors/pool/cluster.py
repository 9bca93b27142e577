"""Connecting to Ray: a cluster that is there, or one of the driver's own on loopback."""

from __future__ import annotations

import atexit
import logging
import math
import os
import secrets
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from processors.pool.errors import PoolUnavailable
from schemas.settings import Settings

OBJECT_STORE_BYTES = 200 * 2**20
"""Clip rows and scores pass through it, no frames: some megabytes."""
CONNECT_S = 10.0
LOOPBACK = "127.0.0.1"


def prepare_environment(settings: Settings) -> None:
    """Set what Ray reads from the environment when it is imported: call this before."""
    # Nothing is reported to anybody.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    # A cluster whose head is gone ends this process after so many seconds, with an error of Ray's
    # own; whoever watches it starts it again. Ray's default is a minute.
    os.environ.setdefault("RAY_gcs_rpc_server_reconnect_timeout_s", "20")
    address = settings.pool.ray_address
    if not address:
        # Else whoever has an account on this machine could have the Ray of our own run anything.
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & set(os.environ):
            os.environ["RAY_AUTH_TOKEN_PATH"] = _new_token_file()
    if not address or address.startswith((f"{LOOPBACK}:", "localhost:")):
        # Otherwise Ray replaces 127.0.0.1 by the machine's address, and its processes, this one
        # included, listen on all of them. The name is Ray's; it holds for every system.
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def _new_token_file() -> str:
    """A file with a token, for this process's user alone; it goes when the process does."""
    descriptor, name = tempfile.mkstemp(prefix="cliplake-ray-token-")
    atexit.register(Path(name).unlink, missing_ok=True)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        file.write(secrets.token_hex(32))
    return name


@contextmanager
def ray_session(settings: Settings) -> Iterator[None]:
    """A connection to ``pool.ray_address``, or to a Ray started here if that is empty.

    A connection that is there already is used and left alone. `PoolUnavailable` if the cluster
    cannot be reached.
    """
    # Not at the top: see `prepare_environment`.
    import ray

    if ray.is_initialized():
        yield
        return
    pool = settings.pool
    try:
        if pool.ray_address:
            _require_listener(pool.ray_address)
            ray.init(
                address=pool.ray_address,
                logging_level=logging.WARNING,
                log_to_driver=False,
            )
        else:
            ray.init(
                address="local",
                num_cpus=max(1, math.ceil(pool.actor_limit * pool.cpus_per_actor)),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level=logging.WARNING,
                log_to_driver=False,
                _node_ip_address=LOOPBACK,
            )
    except (OSError, RuntimeError, ValueError) as error:
        if not pool.ray_address:
            raise PoolUnavailable(f"Ray cannot be started on this machine: {error}") from error
        raise PoolUnavailable(
            f"Ray at {pool.ray_address} (pool.ray_address) takes no connection: {error}; "
            "a cluster with tokens wants RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH set"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _require_listener(address: str) -> None:
    """Fail at once where nothing listens: Ray itself tries for minutes, and logs every second."""
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host, int(port)), timeout=CONNECT_S):
            return
    except ValueError:
        raise PoolUnavailable(f"pool.ray_address is {address!r}, and should be host:port") from None
    except OSError as error:
        raise PoolUnavailable(
            f"Ray at {address} (pool.ray_address) cannot be reached: {error}"
        ) from None
