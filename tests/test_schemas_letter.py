"""A letter's headers are Kafka Connect's, and what comes from outside is made fit for them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from schemas.letter import MOST_CHARS, Letter
from schemas.replay import MessageName

LETTER = Letter(
    table="failed_videos",
    id="a" * 32,
    of=MessageName("video-uploads", 1, 5),
    stage="fetch",
    reason="not_found",
    error="it is gone",
    failed_at=datetime(2026, 1, 31, 12, tzinfo=UTC),
    message=b"{}",
)


def test_headers_are_those_of_connect_and_three_of_our_own() -> None:
    assert dict(LETTER.headers()) == {
        "__connect.errors.topic": b"video-uploads",
        "__connect.errors.partition": b"1",
        "__connect.errors.offset": b"5",
        "__connect.errors.connector.name": b"cliplake-split",
        "__connect.errors.stage": b"fetch",
        "__connect.errors.exception.class.name": b"not_found",
        "__connect.errors.exception.message": b"it is gone",
        "cliplake-letter-id": b"failed_videos/" + b"a" * 32 + b"/video-uploads[1]@5",
        "cliplake-letter-failed-at": b"2026-01-31T12:00:00.000+00:00",
    }
    assert LETTER.key == b"a" * 32


def test_what_is_not_known_has_no_header() -> None:
    bare = replace(LETTER, of=None, error=None, failed_at=None)
    names = {name for name, _ in bare.headers()}
    assert names == {
        "__connect.errors.connector.name",
        "__connect.errors.stage",
        "__connect.errors.exception.class.name",
        "cliplake-letter-id",
    }


def test_text_from_outside_drives_no_terminal_and_has_an_end() -> None:
    hostile = replace(LETTER, error="\x1b[2J\n\u202e\ud800" + "é" * 100_000, stage="\x00")
    headers = dict(hostile.headers())
    message = headers["__connect.errors.exception.message"].decode()
    assert message.startswith("\\x1b[2J\\n\\u202e\\ud800éé")
    assert message.endswith("é…")
    assert len(message) == MOST_CHARS
    assert all(value.decode().isprintable() for value in headers.values())


def test_a_message_that_is_left_out_is_missed_by_its_size() -> None:
    without = LETTER.without_message()
    assert without.message is None
    assert dict(without.headers())["cliplake-letter-left-out-bytes"] == b"2"
