"""The pool's driver: follows ``clips``, has every clip enriched, and commits what comes of it.

One process a lake, one thread. What it promises is in the parts: `source` reads in a fixed order,
`done` leaves finished clips alone, `dispatch` blames the right clip, `progress` and `commits`
store the position together with the rows. A kill at any moment loses and doubles nothing.
"""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from processors.pool.cluster import prepare_environment, ray_session
from processors.pool.errors import SourceLost
from processors.pool.lake import Lake
from processors.pool.lock import only_driver
from processors.pool.metrics import PoolMetrics
from processors.pool.position import Position, load_stored
from processors.pool.source import first_position, rescan_position
from schemas.recipe import Recipe
from schemas.settings import Settings

CHAIN = "processors.chain:EnrichmentChain"


class Driver:
    """Build it with settings and a recipe, then `run` it in the foreground."""

    def __init__(self, settings: Settings, recipe: Recipe, *, chain: str = CHAIN) -> None:
        """``chain``: ``module:class`` that the actors host, with the contract of `chain.py`."""
        self._settings = settings
        self._recipe = recipe
        self._chain = chain
        self._stop = threading.Event()

    def stop(self) -> None:
        """Make `run` drain and return; from a signal handler or another thread."""
        self._stop.set()

    def run(
        self, *, rescan: bool = False, until_idle: bool = False, any_split: bool = False
    ) -> None:
        """Work until SIGTERM or SIGINT, or with ``until_idle`` until nothing is left to do.

        ``rescan`` reads the current table instead of going on at the stored position, then
        follows. ``any_split`` takes clips that were cut otherwise than the recipe says; without
        it they are `OtherSplit`. Raises `StageStartError` if a stage cannot start (nothing was
        taken then), `ConfigError` for settings and tables, and `PoolError` with its exit code
        for the rest.
        """
        if self._settings.log_level != "DEBUG":
            # It writes several lines at INFO for each commit, and there is one a second.
            logging.getLogger("pypaimon").setLevel(logging.WARNING)
        prepare_environment(self._settings)
        # Only now: Ray reads its environment when it is imported.
        from processors.pool.loop import Run
        from processors.pool.workers import Workers

        with only_driver(self._settings):
            lake = Lake(self._settings)
            lake.require_atomic_commits()
            metrics = PoolMetrics()
            start = start_position(lake, rescan=rescan)
            with metrics.served(self._settings.metrics), ray_session(self._settings):
                workers = Workers(self._recipe, self._settings, self._chain)
                try:
                    with self._signals():
                        workers.wait_until_ready(self._stop)
                        if self._stop.is_set():
                            return
                        run = Run(
                            self._settings, self._recipe, lake, workers, start, metrics,
                            self._stop, any_split,
                        )  # fmt: skip
                        run.loop(until_idle)
                finally:
                    workers.close()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGTERM and SIGINT drain. Ray sets handlers of its own on connecting: ours come after."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {
            number: signal.signal(number, lambda *_: self.stop())
            for number in (signal.SIGTERM, signal.SIGINT)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def start_position(lake: Lake, *, rescan: bool = False) -> Position:
    """Where to begin, in an epoch of our own. Nothing is written yet.

    `SourceLost` if there was a position and it cannot be found any more.
    """
    stored = load_stored(lake)
    if rescan:
        position = rescan_position(lake)
    elif stored.lost:
        raise SourceLost("the snapshot of enriched_clips that held the position has expired")
    elif stored.position is None:
        position = first_position(lake)
    elif stored.position.mode == "rescan" and stored.position.source == lake.identity("clips"):
        # A rescan that did not finish starts over, with the table as it is now.
        position = rescan_position(lake)
    else:
        position = stored.position
    return position.in_epoch(stored.epoch + 1)
