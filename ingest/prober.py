"""Fetches and probes several videos at once, in threads of its own; knows nothing of Flink.

Each store has its own queue and its own limit, so that one that is slow or out holds up its own
videos only. What is finished waits here until it is asked for; nothing more is begun while much
does. What is in hand when the process ends is lost, and whoever submitted it has
to do so again.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, LifoQueue

from tenacity import Retrying, retry_if_exception, stop_after_attempt

from ingest.store_names import StoreNames
from processors.errors import DependencyFault, MediaError
from processors.fetch import Fetcher, LocalMedia
from processors.media.probe import VideoInfo, probe
from processors.media.sandbox import Sandbox
from schemas.reasons import MediaReason
from schemas.settings import DecodeSettings, FetchSettings

KEPT_FOR = "split"
"""Name under which videos stay on this machine for the tasks that score their segments."""

STORES = 4
"""As many stores may have all of `fetch.at_once` under way: the rest of the threads' memory and of
the scratch folder is for others."""
_PROBING = 2
"""Child processes that probe. It takes a moment a video, and each child has its memory; a second
one goes on while a file holds the first until its deadline."""

ATTEMPTS = 2
"""A decoder that dies is tried again in a fresh process before its video is blamed."""
_TRIED_AGAIN = frozenset({MediaReason.DECODER_CRASHED, MediaReason.OUT_OF_MEMORY})
# A deadline is generous already, and everything behind it waits: once is enough.

PATIENCE_S = 10.0
"""How long something that we depend on is waited for before the job starts anew; Flink does so
after 0.5 s at first and 10 s at most, with nothing lost, until `fetch.outage_s` is over."""
FIRST_WAIT_S = 0.5
LONGEST_WAIT_S = 2.0
"""Of the waits between two attempts meanwhile."""

_PROBE_BYTES_PER_VIDEO_SECOND = 10_000_000
"""Probing reads a file's packets and decodes next to nothing: its deadline grows with the size,
as if this many bytes were a second of video."""


@dataclass(frozen=True)
class Probed:
    """A video that was fetched and probed."""

    info: VideoInfo
    sha256: str
    """Of the bytes that were probed, hex."""


@dataclass(frozen=True)
class NotProbed:
    """A video of which nothing can be made."""

    error: MediaError
    attempts: int


@dataclass(frozen=True)
class _Video:
    name: str
    uri: str


@dataclass
class _Queue:
    """The videos of one store that wait, and how many of its are under way."""

    waiting: deque[_Video] = field(default_factory=deque)
    under_way: int = 0
    failing_since: float | None = None
    """Of the monotonic clock; from then on one video at a time is tried, until one succeeds."""
    wait_s: float = 0.0
    try_at: float = 0.0

    def failed(self, now: float) -> float:
        """The store has failed once more; for how many seconds it has."""
        if self.failing_since is None:
            self.failing_since = now
        self.wait_s = min(LONGEST_WAIT_S, 2 * self.wait_s or FIRST_WAIT_S)
        self.try_at = now + self.wait_s * random.uniform(0.5, 1.0)
        return now - self.failing_since

    def succeeded(self) -> None:
        self.failing_since, self.wait_s, self.try_at = None, 0.0, 0.0


class Prober:
    """Fetches and probes what is submitted; several threads may use it."""

    def __init__(
        self,
        fetch: FetchSettings,
        decode: DecodeSettings,
        scratch_dir: Path,
        *,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._names = StoreNames(fetch)
        self._at_once = fetch.at_once
        self._most = STORES * fetch.at_once
        self._patience_s = patience_s
        self._fetcher = Fetcher(fetch, scratch_dir, keep_for=KEPT_FOR)
        # The one that was used last comes first, so that the second starts only if it is needed.
        self._sandboxes: LifoQueue[Sandbox] = LifoQueue()
        for _ in range(_PROBING):
            self._sandboxes.put(Sandbox(decode))
        self._changed = threading.Condition()
        self._queues: dict[str, _Queue] = {}
        self._waiting = 0
        self._threads = 0
        self._idle = 0
        self._finished: list[tuple[str, Probed | NotProbed]] = []
        self._fault: BaseException | None = None
        self._closed = False

    @property
    def most(self) -> int:
        """Videos that are fetched and probed at a time, of all stores together."""
        return self._most

    def submit(self, name: str, uri: str) -> None:
        """Have a video fetched and probed; `finished` gives the result under ``name``."""
        with self._changed:
            queue = self._queues.setdefault(self._names.of(uri), _Queue())
            queue.waiting.append(_Video(name, uri))
            self._waiting += 1
            if self._waiting > self._idle and self._threads < self._most:
                self._threads += 1
                # A daemon: a fetch cannot be broken off, and must not hold up the process's end.
                threading.Thread(target=self._work, name="prober", daemon=True).start()
            self._changed.notify_all()

    def wait(self, seconds: float) -> None:
        """Return once there is something for `finished` to give or raise, or after this time."""
        with self._changed:
            self._changed.wait_for(self._has_news, seconds)

    def finished(self) -> list[tuple[str, Probed | NotProbed]]:
        """Take what was finished since, in the order in which it was.

        Raises the `DependencyFault` of a store, or of the scratch disk, that was waited for in
        vain for ``patience_s``, and at once what else went wrong and is no video's fault.
        """
        with self._changed:
            if self._fault is not None:
                raise self._fault
            taken, self._finished = self._finished, []
            self._changed.notify_all()
            return taken

    def close(self) -> None:
        """Take up nothing more, and let go of the rest once what is under way has ended."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            none_works = not self._threads
        idle = []
        with suppress(Empty):
            while True:
                idle.append(self._sandboxes.get_nowait())
        for sandbox in idle:
            sandbox.close()
            # Who waits for one is told that it is closed.
            self._sandboxes.put(sandbox)
        if none_works:
            self._fetcher.close()

    def _has_news(self) -> bool:
        return bool(self._finished) or self._fault is not None

    def _work(self) -> None:
        while (taken := self._next()) is not None:
            store, video = taken
            result: Probed | NotProbed | BaseException
            try:
                result = self._probed(video.uri)
            except BaseException as error:  # it is raised where the results are asked for
                result = error
            self._ended(store, video, result)
        with self._changed:
            self._threads -= 1
            is_last = not self._threads
        if is_last:
            self._fetcher.close()

    def _next(self) -> tuple[str, _Video] | None:
        """A video whose turn it is, once there is one; None after `close`."""
        with self._changed:
            while not self._closed:
                wait_s = None
                now = time.monotonic()
                # Ahead of those who score there is no more than they will find still kept.
                has_room = len(self._finished) < self._most
                for store, queue in self._queues.items() if has_room else ():
                    if not queue.waiting or queue.under_way >= self._limit(queue):
                        continue
                    if queue.try_at <= now:
                        queue.under_way += 1
                        self._waiting -= 1
                        # The others come before it is this store's turn again.
                        self._queues[store] = self._queues.pop(store)
                        return store, queue.waiting.popleft()
                    wait_s = min(queue.try_at - now, wait_s or LONGEST_WAIT_S)
                self._idle += 1
                self._changed.wait(wait_s)
                self._idle -= 1
            return None

    def _limit(self, queue: _Queue) -> int:
        return self._at_once if queue.failing_since is None else 1

    def _ended(self, store: str, video: _Video, result: Probed | NotProbed | BaseException) -> None:
        with self._changed:
            queue = self._queues[store]
            queue.under_way -= 1
            now = time.monotonic()
            if isinstance(result, DependencyFault):
                # It may be a redirect that leads to a store that is out; the next may succeed.
                queue.waiting.append(video)
                self._waiting += 1
                if queue.failed(now) >= self._patience_s:
                    self._fault = self._fault or result
            elif isinstance(result, BaseException):
                self._fault = self._fault or result
            else:
                queue.succeeded()
                self._finished.append((video.name, result))
            if not queue.waiting and not queue.under_way and queue.failing_since is None:
                del self._queues[store]
            self._changed.notify_all()

    def _probed(self, uri: str) -> Probed | NotProbed:
        retrying = retrying_decoders()
        sha256 = ""
        try:
            with self._fetcher.fetch(uri) as media:
                sha256 = media.sha256
                return Probed(retrying(self._probe, media), sha256)
        except MediaError as error:
            if sha256:
                self._fetcher.drop(uri, sha256)
            return NotProbed(error, attempts_of(retrying))

    def _probe(self, media: LocalMedia) -> VideoInfo:
        sandbox = self._sandboxes.get()
        try:
            deadline = sandbox.deadline_for(media.size / _PROBE_BYTES_PER_VIDEO_SECOND)
            return sandbox.run(probe, str(media.path), deadline_s=deadline, stage="probe")
        finally:
            self._sandboxes.put(sandbox)
            if self._closed:
                sandbox.close()


def retrying_decoders() -> Retrying:
    """Calls once more what a decoder died of."""
    return Retrying(
        retry=retry_if_exception(
            lambda error: isinstance(error, MediaError) and error.reason in _TRIED_AGAIN
        ),
        stop=stop_after_attempt(ATTEMPTS),
        reraise=True,
    )


def attempts_of(retrying: Retrying) -> int:
    """How often it called."""
    return int(retrying.statistics.get("attempt_number", 1))
