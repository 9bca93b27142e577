"""Dead letters in the order in which they were committed, each with its message.

Rows that a replay has resolved are no letters. One that fails again is a letter again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from processors.pool.lake import Lake
from processors.pool.position import Position
from processors.pool.source import TableSource
from schemas.letter import LETTER_TABLES, Letter
from schemas.replay import MessageName
from schemas.tables import FAILED_CLIPS, FAILED_VIDEOS, REJECTED_MESSAGES, VIDEOS

ROWS_AT_ONCE = 100
"""Each may have a message of a megabyte and more."""

_ARRIVALS = "arrivals"
_IDS = {FAILED_VIDEOS.name: "video_key", FAILED_CLIPS.name: "clip_id"}
_AT = ("kafka_topic", "kafka_partition", "kafka_offset")


@dataclass(frozen=True)
class LetterChunk:
    """Letters of one table that were committed after another; there may be none."""

    table: str
    letters: Sequence[Letter]
    after: Position
    """Where the table is to be read on once these are published."""


class LetterSource:
    """Follows `LETTER_TABLES`. Not thread-safe."""

    def __init__(self, lake: Lake, start: Mapping[str, Position], way_out: str) -> None:
        self._lake = lake
        self._sources = {
            table.name: TableSource(lake, start[table.name], table, way_out)
            for table in LETTER_TABLES
        }

    def lag(self) -> dict[str, int]:
        """Snapshots of each table that were not wholly read; 0 if there is nothing new."""
        return {
            table: max(0, source.latest_snapshot() + 1 - source.next_snapshot)
            for table, source in self._sources.items()
        }

    def read(self, most: int = ROWS_AT_ONCE) -> Iterable[LetterChunk]:
        """What is new now, at most ``most`` rows a table; `SourceLost` as `TableSource.read`."""
        for table, source in self._sources.items():
            chunk = source.read(most)
            if chunk is not None:
                rows = [r for r in chunk.rows.to_pylist() if r["resolved_at"] is None]
                yield LetterChunk(table, self._letters(table, rows), chunk.span.after)

    def _letters(self, table: str, rows: Sequence[Mapping[str, Any]]) -> list[Letter]:
        rejected = table == REJECTED_MESSAGES.name
        messages = {} if rejected else self._messages(rows)
        found = []
        for row in rows:
            of = _message_of(row)
            found.append(
                Letter(
                    table=table,
                    id=str(of) if rejected else row[_IDS[table]],
                    of=of,
                    stage=_ARRIVALS if rejected else row["stage"],
                    reason=row["reason"],
                    error=row["error"],
                    failed_at=row["failed_at"],
                    message=row["payload"] if rejected else messages.get(of),
                )
            )
        return found

    def _messages(self, rows: Sequence[Mapping[str, Any]]) -> dict[MessageName | None, bytes]:
        """The messages behind failed videos and clips, from ``videos``.

        Found by their coordinates: those grow from file to file, so that most files are passed
        over by their statistics, which hashes such as ``video_key`` would not do.
        """
        wanted = {name for row in rows if (name := _message_of(row)) is not None}
        if not wanted:
            return {}
        build = self._lake.predicates(VIDEOS.name)
        mine = build.and_predicates(
            [
                build.is_in("kafka_partition", sorted({name.partition for name in wanted})),
                build.is_in("kafka_offset", sorted({name.offset for name in wanted})),
            ]
        )
        found = self._lake.read(VIDEOS.name, [*_AT, "message"], mine).to_pylist()
        return {name: row["message"] for row in found if (name := _message_of(row)) in wanted}


def _message_of(row: Mapping[str, Any]) -> MessageName | None:
    topic, partition, offset = (row[name] for name in _AT)
    return None if topic is None or partition is None else MessageName(topic, partition, offset)
