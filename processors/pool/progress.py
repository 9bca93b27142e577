"""Which of the clips that were read are finished, and how far that goes without a gap.

Clips finish in any order; the position that is stored may only pass those that all finished.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from processors.pool.position import Position


@dataclass
class Span:
    """Rows read together: ``count`` rows of one source snapshot from ``offset``.

    ``after`` is the position once all of them, and all spans before, are finished.
    """

    start: Position
    count: int
    after: Position
    done: bytearray = field(init=False)
    finished: int = field(default=0, init=False)
    prefix: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self.done = bytearray(self.count)

    def finish(self, index: int) -> None:
        """Mark row ``index`` of the span finished; a second time is an error of ours."""
        if self.done[index]:
            raise RuntimeError(f"row {self.start.offset + index} was finished twice")
        self.done[index] = 1
        self.finished += 1


class Progress:
    """Spans in the order in which they were read, from the first unfinished one on."""

    def __init__(self, start: Position) -> None:
        self._position = start
        self._spans: deque[Span] = deque()

    def add(self, span: Span) -> None:
        self._spans.append(span)

    @property
    def rows_held(self) -> int:
        """Rows between the position and the last one read: the memory this takes, in bytes."""
        return sum(span.count for span in self._spans)

    def position(self) -> Position:
        """The furthest position before which everything is finished."""
        while self._spans and self._spans[0].finished == self._spans[0].count:
            self._position = self._spans.popleft().after
        if self._spans and self._spans[0].start.mode == "follow":
            span = self._spans[0]
            gap = span.done.find(0, span.prefix)
            span.prefix = gap if gap >= 0 else span.count
            start = span.start
            self._position = Position(
                start.source, start.snapshot, start.offset + span.prefix, epoch=start.epoch
            )
        return self._position
