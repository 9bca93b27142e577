"""Connecting to Ray: a cluster that is there, or one of the driver's own on loopback."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from processors.pool.errors import PoolUnavailable
from schemas.settings import Settings

OBJECT_STORE_BYTES = 200 * 2**20
"""Clip rows and scores pass through it, no frames: some megabytes."""


@contextmanager
def ray_session(settings: Settings) -> Iterator[None]:
    """A connection to ``pool.ray_address``, or to a Ray started here if that is empty.

    A connection that is there already is used and left alone. `PoolUnavailable` if the cluster
    cannot be reached.
    """
    # Before the import: it is read then. Nothing is reported to anybody.
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    import ray

    if ray.is_initialized():
        yield
        return
    pool = settings.pool
    try:
        if pool.ray_address:
            ray.init(
                address=pool.ray_address,
                logging_level=logging.WARNING,
                log_to_driver=False,
            )
        else:
            ray.init(
                address="local",
                num_cpus=max(1, round(pool.actors * pool.cpus_per_actor)),
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                logging_level=logging.WARNING,
                log_to_driver=False,
                # Without it Ray listens on the machine's address, for anybody.
                _node_ip_address="127.0.0.1",
            )
    except (ConnectionError, OSError, RuntimeError, ValueError) as error:
        where = pool.ray_address or "on this machine"
        raise PoolUnavailable(
            f"Ray {where} cannot be reached or started: {error} (pool.ray_address)"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()
