"""A dead letter as a record of the dead-letter topic, with the headers of Kafka Connect.

Connect names them in KIP-298, and writes every value as text in UTF-8. Left out is what has no
meaning here: ``task.id``, ``class.name`` and ``exception.stacktrace``. A message's key is in no
table, so the record's key is the letter's id.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime

from schemas.replay import MessageName
from schemas.tables import FAILED_CLIPS, FAILED_VIDEOS, REJECTED_MESSAGES, Table
from schemas.text import printable

LETTER_TABLES: tuple[Table, ...] = (REJECTED_MESSAGES, FAILED_VIDEOS, FAILED_CLIPS)
"""The tables whose rows are dead letters."""

CONNECT = "__connect.errors."
"""What the names of Connect's headers begin with."""
LETTER_ID = "cliplake-letter-id"
"""The same for the same failure, however often it is sent: by it a reader drops repeats."""
FAILED_AT = "cliplake-letter-failed-at"
"""ISO 8601, UTC."""
LEFT_OUT_BYTES = "cliplake-letter-left-out-bytes"
"""Size of a message that is too large for this topic; the record has no value then."""

MOST_CHARS = 2048
"""Of one header's text."""

_CONNECTORS = {
    REJECTED_MESSAGES.name: "cliplake-arrivals",
    FAILED_VIDEOS.name: "cliplake-split",
    FAILED_CLIPS.name: "cliplake-pool",
}


@dataclass(frozen=True)
class Letter:
    """One failure: a row of one of `LETTER_TABLES`, and the message behind it."""

    table: str
    id: str
    """As `cliplake dead-letters list` shows it: message, video_key or clip_id."""
    of: MessageName | None
    """The message; None only in a row that no part of this writes."""
    stage: str
    reason: str
    error: str | None
    failed_at: datetime | None
    message: bytes | None
    """Its bytes as they came; None if it had none, or the lake has them no more."""
    left_out_bytes: int | None = None

    @property
    def key(self) -> bytes:
        """The record's key; in a compacted topic the newest failure of each letter stays."""
        return _text(self.id)

    def without_message(self) -> Letter:
        """The same with the message's size in its stead."""
        return replace(self, message=None, left_out_bytes=len(self.message or b""))

    def headers(self) -> list[tuple[str, bytes]]:
        """Connect's first, then ours; each bounded, and nothing in one can drive a terminal."""
        of, failed_at = self.of, self.failed_at
        found: list[tuple[str, str | None]] = [
            (f"{CONNECT}topic", of.topic if of else None),
            (f"{CONNECT}partition", str(of.partition) if of else None),
            (f"{CONNECT}offset", str(of.offset) if of else None),
            (f"{CONNECT}connector.name", _CONNECTORS[self.table]),
            (f"{CONNECT}stage", self.stage),
            (f"{CONNECT}exception.class.name", self.reason),
            (f"{CONNECT}exception.message", self.error),
            (LETTER_ID, f"{self.table}/{self.id}" + (f"/{of}" if of else "")),
            (FAILED_AT, failed_at.isoformat(timespec="milliseconds") if failed_at else None),
            (LEFT_OUT_BYTES, None if self.left_out_bytes is None else str(self.left_out_bytes)),
        ]
        return [(name, _text(value)) for name, value in found if value is not None]


def _text(value: str) -> bytes:
    # Written out first: what was cut could begin anew in the middle of an escape.
    shown = printable(value)
    if len(shown) > MOST_CHARS:
        shown = shown[: MOST_CHARS - 1] + "…"
    return shown.encode("utf-8", errors="backslashreplace")
