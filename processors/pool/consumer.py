"""Keeps the snapshots of ``clips`` that are still to be read from expiring.

This is Paimon's consumer file, which every engine's snapshot expiry respects. It is a hint for
expiry only: where to read on is stored with the rows (`processors.pool.position`).
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from pypaimon.consumer.consumer import Consumer

from processors.failpoints import passing
from processors.pool.lake import Lake
from processors.pool.position import SOURCE

CONSUMER_ID = "cliplake-pool"


def hold_snapshots(lake: Lake, next_snapshot: int) -> None:
    """Say that ``next_snapshot`` and what follows are still needed.

    Replaced in one step: pypaimon's own writer truncates first, and an empty file, which a kill
    in between leaves, stops every reader of it for good. (Its atomic write refuses to replace.)
    """
    table = lake.table(SOURCE)
    path = f"{table.table_path}/consumer/consumer-{CONSUMER_ID}"
    text = Consumer(next_snapshot=next_snapshot).to_json()
    if urlsplit(path).scheme not in ("", "file"):
        # An object appears in object stores whole or not at all.
        table.file_io.overwrite_file_utf8(path, text)
        return
    file = Path(table.file_io.to_filesystem_path(path))
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.part")
    part.write_text(text, encoding="utf-8")
    passing("consumer.half_written")
    part.replace(file)
