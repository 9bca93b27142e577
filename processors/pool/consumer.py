"""Keeps the snapshots of ``clips`` that are still to be read from expiring.

This is Paimon's consumer file, which every engine's snapshot expiry respects. It is a hint for
expiry only: where to read on is stored with the rows (`processors.pool.position`).
"""

from __future__ import annotations

from pypaimon.consumer.consumer import Consumer

from processors.pool.lake import Lake
from processors.pool.position import SOURCE

CONSUMER_ID = "cliplake-pool"


def hold_snapshots(lake: Lake, next_snapshot: int) -> None:
    """Say that ``next_snapshot`` and what follows are still needed.

    Written by rename: pypaimon's own writer truncates first, and an empty file, which a kill in
    between leaves, stops every reader of it for good.
    """
    table = lake.table(SOURCE)
    path = f"{table.table_path}/consumer/consumer-{CONSUMER_ID}"
    table.file_io.try_to_write_atomic(path, Consumer(next_snapshot=next_snapshot).to_json())
