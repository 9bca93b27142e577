"""Micro-batches keep the clips of a video together where they fit."""

from __future__ import annotations

import random

import numpy as np
import pyarrow as pa
import pytest

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


def taken_by(backlog: Backlog, *turns: str, nodes: str = "ab") -> list[list[str]]:
    """What nodes of one letter are given, each in its turn."""
    taken = [backlog.take(2, node, set(nodes)) for node in turns]
    return [[] if t is None else t[0].column("clip_id").to_pylist() for t in taken]


def test_a_long_video_stays_on_its_node_while_others_have_something_else_to_do() -> None:
    backlog, span = filled([5, 5, 2])
    assert taken_by(backlog, "a", "b", "b", "a", "a") == [
        ["0-0", "0-1"],
        ["1-0", "1-1"],
        ["1-2", "1-3"],
        ["0-2", "0-3"],
        ["0-4"],
    ]
    assert taken_by(backlog, "a", "b", "a") == [["2-0", "2-1"], ["1-4"], []]
    assert backlog.rows == 0
    assert span.count == 12


def test_a_node_that_would_have_nothing_to_do_is_given_clips_of_anothers_video() -> None:
    backlog, _ = filled([9])
    assert taken_by(backlog, "a", "b", "b", "a") == [
        ["0-0", "0-1"],
        ["0-2", "0-3"],
        ["0-4", "0-5"],
        ["0-6", "0-7"],
    ]


def test_who_has_fetched_a_video_goes_on_with_it() -> None:
    backlog, _ = filled([9])
    taken_by(backlog, "a", "b")
    rows = [clip(0, clip_id=f"1-{n}", video_key="later", clip_index=n) for n in range(2)]
    span = Span(Position("t", 1), 2, Position("t", 1, 2))
    backlog.add(pa.Table.from_pylist(rows), np.arange(2), span)
    assert taken_by(backlog, "b", "c", nodes="abc") == [["0-4", "0-5"], ["1-0", "1-1"]]


def test_a_video_of_a_lost_node_goes_on_elsewhere_at_once() -> None:
    backlog, _ = filled([4, 2])
    assert taken_by(backlog, "a", "b", nodes="ab") == [["0-0", "0-1"], ["1-0", "1-1"]]
    backlog, _ = filled([4, 2])
    assert taken_by(backlog, "a", nodes="ab") == [["0-0", "0-1"]]
    assert taken_by(backlog, "b", nodes="b") == [["0-2", "0-3"]]


@pytest.mark.parametrize("seed", range(20))
def test_every_clip_goes_out_once_whoever_asks(seed: int) -> None:
    rng = random.Random(seed)
    backlog, span = filled([rng.randrange(1, 12) for _ in range(12)])
    while taken := backlog.take(rng.randrange(1, 6), rng.choice("abc"), "abc"[: rng.randrange(4)]):
        for index in taken[2]:
            span.finish(index)
    assert (span.finished, backlog.rows) == (span.count, 0)
