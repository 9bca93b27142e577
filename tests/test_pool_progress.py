"""The stored position passes only what is finished, without a gap."""

from __future__ import annotations

import pytest

from processors.pool.position import Position
from processors.pool.progress import Progress, Span


def at(snapshot: int, offset: int = 0) -> Position:
    return Position("table", snapshot, offset)


def test_the_position_stops_at_the_first_unfinished_row() -> None:
    progress = Progress(at(1))
    span = Span(at(1), 4, at(1, 4))
    progress.add(span)
    span.finish(1)
    span.finish(2)
    assert progress.position() == at(1)
    span.finish(0)
    assert progress.position() == at(1, 3)
    span.finish(3)
    assert progress.position() == at(1, 4)


def test_later_spans_wait_for_earlier_ones() -> None:
    progress = Progress(at(1))
    first, end = Span(at(1), 1, at(1, 1)), Span(at(1, 1), 0, at(2))
    second = Span(at(2), 1, at(2, 1))
    for span in (first, end, second):
        progress.add(span)
    second.finish(0)
    assert progress.position() == at(1)
    assert progress.rows_held == 2
    first.finish(0)
    assert progress.position() == at(2, 1)
    assert progress.rows_held == 0


def test_a_rescan_has_no_position_within_it() -> None:
    start = Position("table", 5, mode="rescan")
    progress = Progress(start)
    span = Span(start, 2, start)
    progress.add(span)
    progress.add(Span(start, 0, at(6)))
    span.finish(0)
    assert progress.position() == start
    span.finish(1)
    assert progress.position() == at(6)


def test_finishing_a_row_twice_is_an_error() -> None:
    span = Span(at(1, 10), 2, at(1, 12))
    span.finish(1)
    with pytest.raises(RuntimeError, match="row 11 was finished twice"):
        span.finish(1)
