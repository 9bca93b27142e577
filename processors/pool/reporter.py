"""Tells people and machines how far the driver is: log lines, status file and metrics."""

from __future__ import annotations

import logging
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress

from rich.console import Console

from processors.pool.metrics import PoolMetrics
from processors.pool.status_file import PoolStatus, status_path
from schemas.reasons import ClipStatus
from schemas.settings import Settings

STATUS_EVERY_S = 1.0
LINE_EVERY_S = 10.0
RATE_OVER_S = 10.0

logger = logging.getLogger(__name__)


class Reporter:
    """Counts verdicts, and publishes the counts at their own pace."""

    def __init__(self, settings: Settings, metrics: PoolMetrics) -> None:
        self._path = status_path(settings)
        self._metrics = metrics
        self._status = PoolStatus()
        self._counts = dict.fromkeys(ClipStatus, 0)
        self._recent: deque[tuple[float, int]] = deque([(time.monotonic(), 0)])
        self._next_status = 0.0
        self._next_line = time.monotonic() + LINE_EVERY_S
        self._lined = 0
        console = Console(stderr=True)
        self._live = console.status("reading clips") if console.is_terminal else None
        if self._live is not None:
            self._live.start()

    def finished(self, statuses: Iterable[ClipStatus]) -> None:
        """Count verdicts."""
        for status, count in Counter(statuses).items():
            self._counts[status] += count
            self._metrics.clips.labels(status.value).inc(count)

    def skipped(self, count: int) -> None:
        """Count clips that had their row already."""
        self._status.skipped += count
        self._metrics.skipped.inc(count)

    def update(
        self,
        *,
        snapshot: int,
        in_flight: int,
        paused: bool,
        actors: int,
        latest: Callable[[], int],
        last: bool = False,
    ) -> None:
        """Take the present state, and publish it if it is time or the ``last`` one.

        ``snapshot`` is the first that is not wholly committed; ``latest`` asks the lake.
        """
        now = time.monotonic()
        self._metrics.in_flight.set(in_flight)
        self._metrics.actors.set(actors)
        if now < self._next_status and not last:
            return
        self._next_status = now + STATUS_EVERY_S
        status, total = self._status, sum(self._counts.values())
        status.actors = actors
        status.snapshot, status.in_flight, status.paused = snapshot, in_flight, paused
        with suppress(Exception):
            # While the lake cannot be asked, the last answer stands; work itself will complain.
            status.latest_snapshot = latest()
        self._metrics.lag.set(max(0, status.latest_snapshot + 1 - snapshot))
        status.kept = self._counts[ClipStatus.KEPT]
        status.rejected = self._counts[ClipStatus.REJECTED]
        status.failed = self._counts[ClipStatus.FAILED]
        status.clips_per_second = self._rate(now, total)
        try:
            status.write(self._path)
        except OSError as error:
            logger.warning("status file %s cannot be written: %s", self._path, error)
        self._show(now, total, in_flight, last)

    def _rate(self, now: float, total: int) -> float:
        self._recent.append((now, total))
        while len(self._recent) > 2 and now - self._recent[0][0] > RATE_OVER_S:
            self._recent.popleft()
        then, count = self._recent[0]
        return round((total - count) / max(now - then, 1e-3), 2)

    def _show(self, now: float, total: int, in_flight: int, last: bool) -> None:
        # With nothing left to read, the one that is waited for is after the latest.
        reading = min(self._status.snapshot, self._status.latest_snapshot)
        line = (
            f"snapshot {reading} of {self._status.latest_snapshot}, "
            f"in flight {in_flight}, kept {self._status.kept}, "
            f"rejected {self._status.rejected}, failed {self._status.failed}, "
            f"{self._status.clips_per_second:.1f} clips/s"
            + (", waiting for a dependency" if self._status.paused else "")
        )
        if self._live is not None:
            self._live.update(line)
            if last:
                self._live.stop()
        elif last or (now >= self._next_line and (total != self._lined or in_flight)):
            self._next_line = now + LINE_EVERY_S
            self._lined = total
            logger.info(line)
