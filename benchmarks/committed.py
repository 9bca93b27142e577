"""How far a table has got, for benchmarks that watch one grow."""

from __future__ import annotations

from typing import Any

from processors.pool.lake import Lake


def committed(lake: Lake, table: str) -> int:
    """Records in a table's files so far. One file is read: the CPUs are for what is measured."""
    snapshot: Any = lake.table(table).snapshot_manager().get_latest_snapshot()
    return 0 if snapshot is None else int(snapshot.total_record_count)
