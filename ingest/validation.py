"""One record of the topic → the rows that the arrivals job makes of it. Knows nothing of Flink."""

from __future__ import annotations

from collections.abc import Container, Iterator
from datetime import datetime
from typing import Any, NamedTuple

from schemas.message import MessageRejected, parse_message
from schemas.reasons import RejectedMessageReason
from schemas.replay import Replay


class ParsedRow(NamedTuple):
    """One reference, or the one reason why there is none; in the order of the job's SQL."""

    record_index: int
    video_key: str | None
    video_id: str | None
    uri: str | None
    etag: str | None
    source: str | None
    uploaded_at_ms: int | None
    """Milliseconds since 1970."""
    attributes: dict[str, str] | None
    is_known: bool
    """Whether its video was accepted before the job's state begins."""
    replay_id: str | None
    """Id of the replay, if this reference is meant by one."""
    letter_topic: str | None
    """Coordinates of the message that a replay sent again; null in a record that is none."""
    letter_partition: int | None
    letter_offset: int | None
    reason: str | None
    error: str | None


def parsed_rows(
    payload: bytes | None, known: Container[str] = (), replay: Replay | None = None
) -> Iterator[ParsedRow]:
    """The rows of one record's value; never an exception, since the record would come back
    after every restart and stop all that follow it."""
    try:
        references = parse_message(payload)
    except MessageRejected as rejected:
        yield _rejected(rejected.reason, rejected.error, replay)
        return
    except Exception as error:
        yield _rejected(
            RejectedMessageReason.INVALID_FIELD,
            f"validation failed: {type(error).__name__}: {error}",
            replay,
        )
        return
    for video in references:
        yield ParsedRow(
            record_index=video.record_index,
            video_key=video.video_key,
            video_id=video.video_id,
            uri=video.uri,
            etag=video.etag,
            source=video.source,
            uploaded_at_ms=None if video.uploaded_at is None else millis(video.uploaded_at),
            attributes=video.attributes,
            is_known=video.video_key in known,
            replay_id=replay.id if replay and replay.means(video.video_key) else None,
            letter_topic=replay.of.topic if replay else None,
            letter_partition=replay.of.partition if replay else None,
            letter_offset=replay.of.offset if replay else None,
            reason=None,
            error=None,
        )


def millis(moment: datetime) -> int:
    """Milliseconds since 1970 of a time with a zone."""
    return round(moment.timestamp() * 1000)


def _rejected(reason: RejectedMessageReason, error: str, replay: Replay | None) -> ParsedRow:
    nothing = dict.fromkeys(ParsedRow._fields)
    row: dict[str, Any] = {
        **nothing,
        "record_index": 0,
        "is_known": False,
        "replay_id": replay.id if replay else None,
        "letter_topic": replay.of.topic if replay else None,
        "letter_partition": replay.of.partition if replay else None,
        "letter_offset": replay.of.offset if replay else None,
        "reason": str(reason),
        # The text may quote the message: what is not UTF-8 could not be written.
        "error": error.encode("utf-8", errors="replace").decode("utf-8"),
    }
    return ParsedRow(**row)
