"""The driver's Prometheus page. Labels come from closed lists, never ids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    start_http_server,
)

from schemas.problems import ConfigError
from schemas.reasons import ClipStatus
from schemas.settings import MetricsSettings


class PoolMetrics:
    """Counters of one driver; they exist whether or not a page shows them."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.clips = Counter(
            "cliplake_clips", "Clips given a verdict", ["status"], registry=self.registry
        )
        for status in ClipStatus:
            # A series that is there from the start lets rates and alerts see the first one.
            self.clips.labels(status.value)
        self.skipped = Counter(
            "cliplake_clips_skipped",
            "Clips read that had their row already",
            registry=self.registry,
        )
        self.in_flight = Gauge(
            "cliplake_clips_in_flight", "Clips read and not yet committed", registry=self.registry
        )
        self.actors = Gauge(
            "cliplake_pool_actors",
            "Actors of the pool, those that start included",
            registry=self.registry,
        )
        self.commit_seconds = Histogram(
            "cliplake_commit_seconds",
            "Time of one commit over the pool's three tables",
            registry=self.registry,
        )
        self.maintenance_seconds = Histogram(
            "cliplake_maintenance_seconds",
            "Time that commits waited for one maintenance of the pool's tables",
            buckets=(1, 2.5, 5, 10, 20, 30, 60, 120, 300, 600),
            registry=self.registry,
        )
        self.maintenance_failures = Counter(
            "cliplake_maintenance_failures",
            "Maintenances that did not end well",
            registry=self.registry,
        )
        self.lag = Gauge(
            "cliplake_source_snapshot_lag",
            "Snapshots of clips that are not wholly finished",
            registry=self.registry,
        )

    @contextmanager
    def served(self, settings: MetricsSettings) -> Iterator[None]:
        """Serve the page while the driver runs; port 0 serves none."""
        if settings.port == 0:
            yield
            return
        try:
            server, thread = start_http_server(
                settings.port, addr=settings.host, registry=self.registry
            )
        except OSError as error:
            raise ConfigError(
                f"metrics cannot be served on {settings.host}:{settings.port}: {error} "
                "(metrics.host, metrics.port; port 0 switches them off)"
            ) from None
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join(timeout=5)
