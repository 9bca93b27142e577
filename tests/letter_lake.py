"""Dead letters in a lake of `tests.pool_lake`, for the tests of publishing them."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa

from processors.pool.lake import Lake
from schemas.tables import TABLES

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
_SCHEMAS = {table.name: table.arrow_schema() for table in TABLES}


def key(number: int) -> str:
    return hashlib.md5(str(number).encode()).hexdigest()


def write(lake: Lake, table: str, *rows: dict[str, Any]) -> None:
    """One APPEND snapshot."""
    builder = lake.table(table).new_batch_write_builder()
    writer, commit = builder.new_write(), builder.new_commit()
    writer.write_arrow(pa.Table.from_pylist(list(rows), schema=_SCHEMAS[table]))
    commit.commit(writer.prepare_commit())
    writer.close()
    commit.close()


def at(offset: int) -> dict[str, Any]:
    return {"kafka_topic": "video-uploads", "kafka_partition": 0, "kafka_offset": offset}


def rejected(offset: int, payload: bytes | None, **changes: Any) -> dict[str, Any]:
    row = {"reason": "not_json", "error": "not JSON: x", "failed_at": NOW, "seq": 0}
    return {**at(offset), **row, "payload": payload, **changes}


def video(offset: int) -> dict[str, Any]:
    """A row of ``videos``; its message is ``message OFFSET``."""
    row = {"video_key": key(offset), "video_id": f"v{offset}", "uri": f"file:///{offset}.mp4"}
    message = f"message {offset}".encode()
    return {**at(offset), **row, "record_index": 0, "message": message, "dt": "2026-01-31"}


def failed_video(offset: int, **changes: Any) -> dict[str, Any]:
    row = {"stage": "fetch", "reason": "not_found", "error": "gone", "failed_at": NOW}
    return {**at(offset), **row, "video_key": key(offset), **changes}


def failed_clip(offset: int, number: int, **changes: Any) -> dict[str, Any]:
    row = {"stage": "decode", "reason": "decode_error", "error": "broken", "failed_at": NOW}
    ids = {"clip_id": key(1000 * offset + number), "video_key": key(offset)}
    return {**at(offset), **row, **ids, "enrich_seq": number, **changes}
