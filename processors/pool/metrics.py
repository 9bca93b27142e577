"""Prometheus pages: the driver's, and that of what publishes dead letters.

Labels come from closed lists, never ids.
"""

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

from schemas.letter import LETTER_TABLES
from schemas.problems import ConfigError
from schemas.reasons import ClipStatus
from schemas.settings import MetricsSettings


class MetricsPage:
    """The metrics of one process; they exist whether or not a page shows them."""

    def __init__(self, port_setting: str) -> None:
        """``port_setting``: the key of `MetricsSettings` that is this page's port."""
        self.registry = CollectorRegistry()
        self._port_setting = port_setting

    @contextmanager
    def served(self, settings: MetricsSettings) -> Iterator[None]:
        """Serve the page while the process works; port 0 serves none."""
        port: int = getattr(settings, self._port_setting)
        if port == 0:
            yield
            return
        try:
            server, thread = start_http_server(port, addr=settings.host, registry=self.registry)
        except OSError as error:
            raise ConfigError(
                f"metrics cannot be served on {settings.host}:{port}: {error} (metrics.host, "
                f"metrics.{self._port_setting}; port 0 switches them off)"
            ) from None
        try:
            yield
        finally:
            server.shutdown()
            server.server_close()
            thread.join(timeout=5)


class PoolMetrics(MetricsPage):
    """Those of one driver."""

    def __init__(self) -> None:
        super().__init__("port")
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


class LetterMetrics(MetricsPage):
    """Those of what publishes dead letters."""

    def __init__(self) -> None:
        super().__init__("letters_port")
        self.letters = Counter(
            "cliplake_letters",
            "Dead letters of a table that the topic has",
            ["table"],
            registry=self.registry,
        )
        self.lag = Gauge(
            "cliplake_letters_snapshot_lag",
            "Snapshots of a table of dead letters that are not wholly published",
            ["table"],
            registry=self.registry,
        )
        for table in LETTER_TABLES:
            self.letters.labels(table.name)
            self.lag.labels(table.name)
        self.too_large = Counter(
            "cliplake_letters_too_large",
            "Of those letters, the ones whose message was left out for its size",
            registry=self.registry,
        )
        self.failures = Counter(
            "cliplake_letters_failures",
            "Times that publishing stopped and waited, the broker or the lake's store being out",
            registry=self.registry,
        )
