"""Micro-batches keep the clips of a video together where they fit."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from processors.pool.backlog import Backlog
from processors.pool.position import Position
from processors.pool.progress import Span
from tests.pool_lake import clip


def filled(videos: list[int]) -> tuple[Backlog, Span]:
    """A backlog of clips by video, given in an order as bad as hashed keys make it."""
    rows = [
        clip(0, clip_id=f"{video}-{index}", video_key=f"v{video}", clip_index=index)
        for video, count in enumerate(videos)
        for index in range(count)
    ]
    rows = rows[::2] + rows[1::2]
    span = Span(Position("t", 1), len(rows), Position("t", 1, len(rows)))
    backlog = Backlog()
    backlog.add(pa.Table.from_pylist(rows), np.arange(len(rows)), span)
    return backlog, span


def batches(backlog: Backlog, limit: int) -> list[list[str]]:
    found = []
    while (taken := backlog.take(limit)) is not None:
        found.append(taken[0].column("clip_id").to_pylist())
    return found


def test_clips_of_one_video_go_out_together_and_in_order() -> None:
    backlog, _ = filled([2, 3, 2])
    assert batches(backlog, 5) == [["0-0", "0-1", "1-0", "1-1", "1-2"], ["2-0", "2-1"]]
    assert backlog.rows == 0


def test_a_batch_ends_where_the_next_video_would_be_cut() -> None:
    backlog, _ = filled([2, 3, 2])
    assert batches(backlog, 4) == [["0-0", "0-1"], ["1-0", "1-1", "1-2"], ["2-0", "2-1"]]


def test_only_a_video_longer_than_a_batch_is_cut() -> None:
    backlog, _ = filled([5, 1])
    assert batches(backlog, 2) == [["0-0", "0-1"], ["0-2", "0-3"], ["0-4", "1-0"]]


def test_every_row_keeps_its_place_in_the_span() -> None:
    backlog, span = filled([3, 4])
    while (taken := backlog.take(3)) is not None:
        for index in taken[2]:
            span.finish(index)
    assert span.finished == span.count
