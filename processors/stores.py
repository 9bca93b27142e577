"""Stores that are out: which of them are known to be, since when, and when each is asked again.

A store is what the settings name one by one: a bucket, a host, a folder. What a star takes in is
none, and neither is a port that nobody named: whoever writes references could name dead ones
without end, and each would hold up all others. The readers say when a store fails or answers;
`Fetcher` decides what a failure means.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from processors.errors import DependencyFault, MediaError
from processors.fetch_problem import FetchProblem
from schemas.reasons import MediaReason

FIRST_WAIT_S = 1.0
LONGEST_WAIT_S = 60.0
"""Of the waits between two questions to a store that is out; it is back within a minute."""
_FORGET_S = 1800.0
"""An outage of which nobody has noticed anything for so long is over: the next is a new one."""
_PREFIX = "out-"


class StoreOut(DependencyFault):
    """A store does not answer; none of its objects is to blame."""

    STAGE: ClassVar[str] = "fetch"

    def __init__(self, store: str, why: str, for_s: float) -> None:
        super().__init__(f"{store} is out: {why}")
        self.store = store
        self.for_s = for_s
        """Seconds since it was first found to be out."""

    def as_media_error(self) -> MediaError:
        """For who cannot wait, or not any more."""
        return MediaError(MediaReason.FETCH_FAILED, str(self), stage=self.STAGE, retryable=True)

    def __reduce__(self) -> tuple[object, ...]:
        return _store_out, (str(self), self.store, self.for_s)


def _store_out(text: str, store: str, for_s: float) -> StoreOut:
    return StoreOut(store, text.partition(" is out: ")[2], for_s)


@dataclass
class _Outage:
    why: str
    since: float
    """Time since 1970, where no file says so."""
    wait_s: float = 0.0
    ask_at: float = 0.0
    """Of the monotonic clock."""

    def postpone(self) -> None:
        self.wait_s = min(LONGEST_WAIT_S, self.wait_s * 2 or FIRST_WAIT_S)
        self.ask_at = time.monotonic() + self.wait_s * random.uniform(0.5, 1.0)


class Stores:
    """A circuit breaker for each store; several threads may use it.

    When an outage began is kept in files of ``folder``, so that it has an end however often a
    process starts anew meanwhile.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._outages: dict[str, _Outage] = {}
        self._lock = threading.Lock()

    @contextmanager
    def asking(self, store: str | None) -> Iterator[None]:
        """Ask a store for something. A problem that may be the store's own names it from here on.

        `StoreOut` without asking if it is known to be out; one caller after each wait is let
        through to see whether it still is. None: not a store that we depend on.
        """
        if store is None:
            yield
            return
        self._may_ask(store)
        with blaming(store):
            try:
                yield
            except FetchProblem as problem:
                if not problem.retryable:
                    self._answered(store)
                raise
        self._answered(store)

    def found_out(self, store: str, why: str) -> StoreOut:
        """Note that a store was found to be out; the fault to raise."""
        with self._lock:
            outage = self._outages.setdefault(store, _Outage(why, time.time()))
            outage.why = why
            if outage.ask_at <= time.monotonic():
                outage.postpone()
            self._note(store, outage)
            return self._fault(store, outage)

    def _may_ask(self, store: str) -> None:
        with self._lock:
            outage = self._outages.get(store)
            if outage is None:
                return
            if time.monotonic() < outage.ask_at:
                raise self._fault(store, outage)
            # Others are refused while this one asks.
            outage.postpone()

    def _answered(self, store: str) -> None:
        with self._lock:
            self._outages.pop(store, None)
        # Also if another process wrote it.
        with contextlib.suppress(OSError):
            self._path(store).unlink(missing_ok=True)

    def _fault(self, store: str, outage: _Outage) -> StoreOut:
        return StoreOut(store, outage.why, max(0.0, time.time() - outage.since))

    def _note(self, store: str, outage: _Outage) -> None:
        """Take over when the outage began from the file, or write it there."""
        path = self._path(store)
        try:
            if time.time() - path.stat().st_mtime < _FORGET_S:
                outage.since = min(outage.since, float(path.read_text()))
                path.touch()
                return
        except (OSError, ValueError):
            pass
        with contextlib.suppress(OSError):
            path.write_text(repr(outage.since))

    def _path(self, store: str) -> Path:
        return self._folder / (_PREFIX + hashlib.sha256(store.encode()).hexdigest()[:16])


@contextmanager
def blaming(store: str | None) -> Iterator[None]:
    """Name the store in problems that may be its own."""
    try:
        yield
    except FetchProblem as problem:
        if problem.retryable:
            problem.store = store
        raise
