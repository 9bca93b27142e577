"""How many segments the task that fetches passes on in one call, so that checkpoints come through.

A call that passes on more than its receivers take waits until they do, and a checkpoint with it.
What came in meanwhile stands before the checkpoint's barrier as well: if each of those calls passed
on more, a checkpoint would take as long as scoring all that is ready.
"""

from __future__ import annotations

import time
from collections.abc import Callable

BLOCKED_S = 0.5
"""Between two calls, after one that passed something on: its receivers were full. Without segments
the next call comes sooner, since the clock ticks oftener."""
FRESH_S = 0.05
"""A tick that comes sooner after a call had waited for its end; so may a barrier behind it."""


class Pace:
    """Told of each call of one task; only the time between them is looked at."""

    def __init__(self, workers: int, now: Callable[[], float] = time.monotonic) -> None:
        """``workers``: tasks that score."""
        self._workers = workers
        self._now = now
        self._ended_at = now()
        self._passed_on = 0
        self._full = False

    def begin(self, *, is_tick: bool) -> int:
        """A call begins; how many segments it may pass on. ``is_tick``: it is the clock's."""
        pause = self._now() - self._ended_at
        if self._passed_on:
            self._full = pause > BLOCKED_S
            if self._full:
                return 0
        if not self._full:
            return 2 * self._workers
        return self._workers if is_tick and pause > FRESH_S else 0

    def end(self, passed_on: int) -> None:
        """The call ends, in which so many were passed on."""
        self._passed_on = passed_on
        self._ended_at = self._now()
