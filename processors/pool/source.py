"""Reads a table snapshot by snapshot, in a fixed order and never more than is asked for.

pypaimon's own streaming scan is not used: it waits for ever on a snapshot that has expired, and
reads everything again in one plan when it is more than ten behind. Here each APPEND snapshot's
delta is a plan of its own, COMPACT ones are passed, and whatever cannot be followed is an error.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
from pypaimon.manifest.manifest_list_manager import ManifestListManager
from pypaimon.read.scanner.file_scanner import FileScanner

from processors.pool.errors import RESCAN, SourceLost
from processors.pool.lake import Lake
from processors.pool.position import SOURCE, Position
from processors.pool.progress import Span
from schemas.tables import CLIPS, Table

IDENTITY_EVERY_S = 5.0
"""While nothing is new: a table made again may by chance have as many snapshots as were read."""
CARRIES_NO_NEW_ROWS = frozenset({"COMPACT", "ANALYZE"})


@dataclass(frozen=True)
class Chunk:
    """Rows of the table in the order of the source, and the span that accounts for them."""

    span: Span
    rows: pa.Table
    """All columns of the table; may be empty: then the span only moves the position."""


class TableSource:
    """Follows a table from a position. Not thread-safe."""

    def __init__(self, lake: Lake, start: Position, of: Table, way_out: str = RESCAN) -> None:
        """``way_out``: what the person should do if the position leads nowhere."""
        self._lake = lake
        self._of = of
        self._way_out = way_out
        self._table = lake.table(of.name)
        self._manager = self._table.snapshot_manager()
        self._manifests = ManifestListManager(self._table)
        self._next = start
        """Where the next row to read is; in mode rescan, its offset is not meaningful."""
        self._batches: Iterator[pa.RecordBatch] | None = None
        self._rest: pa.RecordBatch | None = None
        self._check_identity_at = 0.0

    @property
    def next_snapshot(self) -> int:
        """The snapshot that is being read, or that is waited for."""
        return self._next.snapshot

    def latest_snapshot(self) -> int:
        """The newest snapshot of the table; 0 if there is none."""
        return self._lake.latest_snapshot_id(self._of.name) or 0

    def read(self, max_rows: int) -> Chunk | None:
        """The next rows, at most ``max_rows``; None if there is nothing new now.

        `SourceLost` if the next snapshot has expired, lies beyond the newest one, replaces rows
        (OVERWRITE), or if the table is not the one that the position speaks of.
        """
        if self._batches is None and not self._open_next():
            return None
        start = self._next
        try:
            rows = self._take(max_rows)
        except FileNotFoundError:
            # Expired under our hands; any other missing file is damage and says so itself.
            self._require_snapshot(start.snapshot)
            raise
        if rows.num_rows == 0:
            self._batches = None
            after = replace(start, snapshot=start.snapshot + 1, offset=0, mode="follow")
        elif start.mode == "rescan":
            after = start
        else:
            after = replace(start, offset=start.offset + rows.num_rows)
        self._next = after
        return Chunk(Span(start, rows.num_rows, after), rows)

    def _open_next(self) -> bool:
        number = self._next.snapshot
        latest = self.latest_snapshot()
        if number <= latest or time.monotonic() >= self._check_identity_at:
            self._require_same_table()
        if number == latest + 1:
            return False
        if number > latest + 1:
            raise self._lost(
                f"the position is before snapshot {number} of {self._of.name}, "
                f"and the newest one is {latest}"
            )
        snapshot = self._require_snapshot(number)
        if self._next.mode == "rescan":
            self._batches = self._reader(self._manifests.read_all, snapshot)
            return True
        if snapshot.commit_kind in CARRIES_NO_NEW_ROWS:
            self._batches = iter(())
            return True
        if snapshot.commit_kind != "APPEND":
            raise self._lost(
                f"snapshot {number} of {self._of.name} is an {snapshot.commit_kind}: rows were "
                "replaced, which cannot be followed"
            )
        self._batches = self._reader(self._manifests.read_delta, snapshot)
        self._skip(self._next.offset)
        return True

    def _require_same_table(self) -> None:
        found = self._lake.identity(self._of.name)
        if found != self._next.source:
            raise self._lost(
                f"table {self._of.name} is not the one that was read before "
                f"(it was {self._next.source}, and is {found})"
            )
        self._check_identity_at = time.monotonic() + IDENTITY_EVERY_S

    def _require_snapshot(self, number: int) -> Any:
        snapshot = self._manager.get_snapshot_by_id(number)
        if snapshot is None:
            raise self._lost(f"snapshot {number} of {self._of.name} has expired before it was read")
        return snapshot

    def _reader(self, manifests: Any, snapshot: Any) -> Iterator[pa.RecordBatch]:
        plan = FileScanner(self._table, lambda: (manifests(snapshot), snapshot)).scan()
        # Files never change, so sorting by their names gives each reading the same order.
        splits = sorted(
            plan.splits(), key=lambda split: (split.bucket, [f.file_name for f in split.files])
        )
        builder = self._table.new_read_builder().with_projection(list(self._of.column_names))
        return iter(builder.new_read().to_arrow_batch_reader(splits, parallelism=1))

    def _take(self, max_rows: int) -> pa.Table:
        taken: list[pa.RecordBatch] = []
        room = max_rows
        while room > 0:
            batch = self._next_batch()
            if batch is None:
                break
            if batch.num_rows > room:
                self._rest = batch.slice(room)
                batch = batch.slice(0, room)
            taken.append(batch)
            room -= batch.num_rows
        return pa.Table.from_batches(taken, schema=None if taken else self._of.arrow_schema())

    def _next_batch(self) -> pa.RecordBatch | None:
        if self._rest is not None:
            batch, self._rest = self._rest, None
            return batch
        assert self._batches is not None
        return next(self._batches, None)

    def _skip(self, rows: int) -> None:
        while rows > 0:
            batch = self._next_batch()
            if batch is None:
                raise self._lost(
                    f"the position is at row {self._next.offset} of snapshot "
                    f"{self._next.snapshot} of {self._of.name}, which has "
                    f"{self._next.offset - rows}"
                )
            if batch.num_rows > rows:
                self._rest = batch.slice(rows)
            rows -= min(rows, batch.num_rows)

    def _lost(self, problem: str) -> SourceLost:
        return SourceLost(problem, self._way_out)


class ClipSource(TableSource):
    """Follows ``clips``, for the driver."""

    def __init__(self, lake: Lake, start: Position) -> None:
        super().__init__(lake, start, CLIPS)


def first_position(lake: Lake) -> Position:
    """Where to begin without a stored position: the first snapshot, or the current table.

    The current table stands for the snapshots before it, once the first of them have expired.
    """
    source = lake.identity(SOURCE)
    manager = lake.table(SOURCE).snapshot_manager()
    latest = manager.get_latest_snapshot()
    if latest is None or manager.get_snapshot_by_id(1) is not None:
        return Position(source, snapshot=1)
    return Position(source, snapshot=latest.id, mode="rescan")


def rescan_position(lake: Lake, table: str = SOURCE) -> Position:
    """The current table, and what comes after it."""
    latest = lake.latest_snapshot_id(table)
    source = lake.identity(table)
    if latest is None:
        return Position(source, snapshot=1)
    return Position(source, snapshot=latest, mode="rescan")
