"""Clips whose video's store is out: they wait here, and those of other stores go on.

How long a store may be out is no concern of this module: `processors.fetch` ends it.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import random
import time
from typing import TYPE_CHECKING

from processors.stores import FIRST_WAIT_S, LONGEST_WAIT_S

if TYPE_CHECKING:
    from processors.pool.dispatch import Work

LOG_EVERY_S = 60.0

logger = logging.getLogger(__name__)


class Holding:
    """Groups of clips by the time at which they are tried again. Single-threaded."""

    def __init__(self) -> None:
        self._groups: list[tuple[float, int, list[Work]]] = []
        self._numbers = itertools.count()
        self._next_line = 0.0

    def __len__(self) -> int:
        """Clips that are held."""
        return sum(len(works) for _, _, works in self._groups)

    def add(self, works: list[Work], why: str) -> None:
        """Hold clips of one micro-batch together, so that a video of theirs is fetched once."""
        for work in works:
            work.holds += 1
        # Doubling from the first wait; the jitter keeps what failed together from coming together.
        longest = min(LONGEST_WAIT_S, FIRST_WAIT_S * 2 ** min(works[0].holds - 1, 10))
        due = time.monotonic() + longest * random.uniform(0.5, 1.0)
        heapq.heappush(self._groups, (due, next(self._numbers), works))
        if time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + LOG_EVERY_S
            logger.warning("%d clips wait, none of them is to blame: %s", len(self), why)

    def take_due(self) -> list[list[Work]]:
        """The groups whose time has come."""
        due = []
        while self._groups and self._groups[0][0] <= time.monotonic():
            due.append(heapq.heappop(self._groups)[2])
        return due

    def clear(self) -> None:
        self._groups.clear()
