"""The messages of the benchmark of arrivals are what their table says, in the shares asked for."""

from __future__ import annotations

import pytest

from benchmarks.arrivals import payloads
from schemas.message import MessageRejected, parse_message


def test_each_message_belongs_in_the_table_that_is_named_with_it() -> None:
    seen: set[str] = set()
    for table, payload in payloads(2000, repeats=0.1, invalid=0.05):
        if table == "rejected_messages":
            with pytest.raises(MessageRejected):
                parse_message(payload)
            continue
        (video,) = parse_message(payload)
        assert (video.video_key in seen) == (table == "repeats")
        seen.add(video.video_key)


def test_the_shares_hold_from_the_start() -> None:
    tables = [table for table, _ in payloads(2000, repeats=0.1, invalid=0.05)]
    for part in (tables[:400], tables[400:1200], tables):
        assert part.count("repeats") / len(part) == pytest.approx(0.1, abs=0.01)
        assert part.count("rejected_messages") / len(part) == pytest.approx(0.05, abs=0.01)


def test_without_repeats_and_junk_every_message_is_a_video() -> None:
    assert {table for table, _ in payloads(100, repeats=0.0, invalid=0.0)} == {"videos"}
