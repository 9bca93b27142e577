"""Dead letters: one view over the three tables, and conditions on it; reading only."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from cliplake.query import LakeSql, QueryError
from schemas.problems import ConfigError, nearest
from schemas.reasons import MediaReason, RejectedMessageReason
from schemas.replay import parse_message_name

if TYPE_CHECKING:
    import pyarrow as pa

TABLES = ("rejected_messages", "failed_videos", "failed_clips")
REASONS = frozenset(str(reason) for reason in (*RejectedMessageReason, *MediaReason))

_KAFKA = "kafka_topic, kafka_partition, kafka_offset, kafka_timestamp"
_TEXT = "CAST(NULL AS VARCHAR)"
_REST = f"""stage, reason, error, retryable, attempts, {_KAFKA}, failed_at, resolved_at,
  {_TEXT} AS replay_of"""
_LETTERS = f"""
SELECT 'rejected_messages' AS table_name,
  concat(kafka_topic, '[', CAST(kafka_partition AS VARCHAR), ']@', CAST(kafka_offset AS VARCHAR))
    AS id,
  {_TEXT} AS video_key, {_TEXT} AS uri, 'arrivals' AS stage, reason, error,
  CAST(NULL AS BOOLEAN) AS retryable, CAST(NULL AS INT) AS attempts, {_KAFKA},
  failed_at, resolved_at, replay_of
FROM rejected_messages
UNION ALL SELECT 'failed_videos' AS table_name, video_key AS id, video_key AS video_key, uri,
  {_REST} FROM failed_videos
UNION ALL SELECT 'failed_clips' AS table_name, clip_id AS id, video_key, uri,
  {_REST} FROM failed_clips
"""
_UNRESOLVED = "resolved_at IS NULL AND replay_of IS NULL"
"""A message that was rejected once more as a replay is no letter of its own."""

_QUOTED = re.compile(r"'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"")
_STRANGE = re.compile(r"--|/\*|[;`$\\]|(?i:\b(?:e|u&)')")
_KEY_LENGTH = 32
_KEY = re.compile(rf"[0-9a-f]{{{_KEY_LENGTH}}}")
_START = re.compile(rf"[0-9a-f]{{4,{_KEY_LENGTH}}}")
"""Of a key: what a person types of it."""
_SEVERAL = 5
_AGO = re.compile(r"(\d{1,6})\s*(s|m|h|d)")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


@dataclass(frozen=True)
class Filter:
    """Which letters; every part that is given must hold."""

    ids: Sequence[str] = ()
    """Whole ones: `full_ids`."""
    table: str | None = None
    reasons: Sequence[str] = ()
    since: datetime | None = None
    where: str | None = None
    """A SQL condition over the letters' columns."""
    resolved: bool = False
    """Whether those that are resolved are wanted too."""


def find_letters(sql: LakeSql, wanted: Filter, limit: int | None = None) -> pa.Table:
    """The letters, newest first; with ``limit`` one more row says that there are more.

    `QueryError` for a condition that is none, `ConfigError` for a reason that there is not.
    """
    for reason in wanted.reasons:
        if reason not in REASONS:
            raise ConfigError(f"there is no reason {reason!r}{nearest(reason, REASONS)}")
    # The condition stands in a column of its own: no other part of the query can be undone by it.
    chosen = "true" if wanted.where is None else condition(sql, wanted.where)
    parts = ["l.chosen"]
    if not wanted.resolved:
        parts.append(_UNRESOLVED)
    if wanted.ids:
        parts.append(f"l.id IN ({_texts(wanted.ids)})")
    if wanted.table is not None:
        parts.append(f"l.table_name = {_texts([wanted.table])}")
    if wanted.reasons:
        parts.append(f"l.reason IN ({_texts(wanted.reasons)})")
    if wanted.since is not None:
        parts.append(f"l.failed_at >= TIMESTAMP '{wanted.since.isoformat()}'")
    return sql.query(
        f"SELECT * EXCEPT (chosen) FROM (SELECT *, (\n{chosen}\n) AS chosen FROM ({_LETTERS}) "
        f"AS letters) AS l WHERE {' AND '.join(parts)} ORDER BY failed_at DESC, id",
        limit,
    )


def full_ids(sql: LakeSql, texts: Sequence[str]) -> list[str]:
    """The ids of letters, resolved or not, of which each text is the whole or, of a key, the start.

    `ConfigError` for a text that can be none, or that is the start of several.
    """
    return [_full_id(sql, text) for text in texts]


def _full_id(sql: LakeSql, text: str) -> str:
    if _KEY.fullmatch(text) or parse_message_name(text) is not None:
        return text
    if not _START.fullmatch(text):
        raise ConfigError(
            f"{text!r} is no dead letter: they are named like video-uploads[0]@5 (a message), by "
            "video_key or by clip_id, of which the first characters are enough; `cliplake "
            "dead-letters list` shows them"
        )
    rows = sql.query(
        f"SELECT DISTINCT id FROM ({_LETTERS}) AS letters WHERE id LIKE '{text}%' ORDER BY id",
        _SEVERAL,
    ).to_pylist()
    found = [row["id"] for row in rows]
    if len(found) > 1:
        more = ", …" if len(found) > _SEVERAL else ""
        shown = ", ".join(found[:_SEVERAL])
        raise ConfigError(f"{text} is the start of several dead letters: {shown}{more}")
    return found[0] if found else text


def condition(sql: LakeSql, text: str) -> str:
    """A SQL condition, checked to be one expression over the letters' columns and a boolean."""
    bare = _QUOTED.sub("''", text)
    if found := _STRANGE.search(text if "\\" in text else bare):
        raise QueryError(f"--where: {found[0]!r} has no place in a condition")
    if "'" in bare.replace("''", "") or '"' in bare:
        raise QueryError("--where: a quotation mark is not closed")
    depth = 0
    for char in bare:
        depth += (char == "(") - (char == ")")
        if depth < 0:
            break
    if depth or not bare.strip():
        raise QueryError("--where takes one condition, with as many ( as )")
    import pyarrow as pa

    try:
        # Where one value is expected: a list of several has no place here.
        found_type = sql.query(
            f"SELECT id, CASE WHEN true THEN (\n{text}\n) END AS chosen "
            f"FROM ({_LETTERS}) AS letters LIMIT 0"
        ).schema.field("chosen")
    except QueryError as error:
        raise QueryError(f"--where: {error}") from None
    if not pa.types.is_boolean(found_type.type):
        raise QueryError(f"--where: a condition is true or false, and this is a {found_type.type}")
    return text


def parse_since(text: str, now: datetime) -> datetime:
    """``2h``, ``3d`` or an ISO 8601 time; `ConfigError` for anything else."""
    if found := _AGO.fullmatch(text.strip()):
        return now - timedelta(**{_UNITS[found[2]]: int(found[1])})
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError:
        raise ConfigError(
            f"--since {text}: like 30m, 2h or 3d, or a time like 2026-01-31T12:00:00Z"
        ) from None
    return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)


def message_of(sql: LakeSql, letter: dict[str, Any]) -> bytes | None:
    """The message's bytes behind a letter; None if there are none in the lake."""
    if letter["table_name"] == "rejected_messages":
        query = (
            "SELECT payload AS message FROM rejected_messages WHERE "
            f"kafka_topic = {_texts([letter['kafka_topic']])} AND kafka_partition = "
            f"{int(letter['kafka_partition'])} AND kafka_offset = {int(letter['kafka_offset'])}"
        )
    else:
        query = f"SELECT message FROM videos WHERE video_key = {_texts([letter['video_key']])}"
    rows = sql.query(f"{query} LIMIT 1").to_pylist()
    return rows[0]["message"] if rows else None


def _texts(values: Sequence[str]) -> str:
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)
