"""Keeps the snapshots of ``clips`` that are still to be read from expiring.

This is Paimon's consumer file, which every engine's snapshot expiry respects. It is a hint for
expiry only: where to read on is stored with the rows (`processors.pool.position`).

A consumer file that is empty or garbage stops every Java writer of its table, which fails to
expire snapshots with each commit. Paimon's own writers truncate before they write, so a kill can
leave one; `heal_consumers` makes it whole.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pypaimon.consumer.consumer import Consumer
from pypaimon.consumer.consumer_manager import ConsumerManager

from processors.failpoints import passing
from processors.pool.lake import Lake
from processors.pool.position import SOURCE

CONSUMER_ID = "cliplake-pool"
BEING_WRITTEN_S = 0.3
"""A file that is empty now may be full in a moment: it is looked at twice, so far apart."""

logger = logging.getLogger(__name__)


def hold_snapshots(
    lake: Lake, next_snapshot: int, *, table: str = SOURCE, consumer_id: str = CONSUMER_ID
) -> None:
    """Say that ``next_snapshot`` of the table and what follows are still needed."""
    held = lake.table(table)
    _write(held, f"{held.table_path}/consumer/consumer-{consumer_id}", next_snapshot)


def release_snapshots(lake: Lake, *, table: str, consumer_id: str) -> None:
    """Take that back: the table's snapshots expire as if nobody read them."""
    held = lake.table(table)
    ConsumerManager(held.file_io, held.table_path).delete_consumer(consumer_id)


def heal_consumers(lake: Lake, names: Iterable[str]) -> list[str]:
    """Have every consumer file of these tables that says nothing hold all snapshots there are.

    So nothing that its reader needs can expire, and the reader itself moves it on. The paths of
    those healed.
    """
    broken = [(name, path) for name in names for path in _broken(lake.table(name))]
    if not broken:
        return []
    time.sleep(BEING_WRITTEN_S)
    healed = []
    for name, path in broken:
        table = lake.table(name)
        if path not in _broken(table):
            continue
        ids = [snapshot.id for snapshot in table.snapshot_manager().list_snapshots()]
        _write(table, path, min(ids, default=1))
        logger.warning("consumer file %s was damaged, and holds all snapshots now", path)
        healed.append(path)
    return healed


def _broken(table: Any) -> list[str]:
    folder = f"{table.table_path}/consumer"
    found = []
    if not table.file_io.exists(folder):
        return []
    for status in table.file_io.list_status(folder):
        name = str(status.path).rsplit("/", 1)[-1]
        if not name.startswith("consumer-"):
            continue
        path = f"{folder}/{name}"
        try:
            if not _says_something(table.file_io.read_file_utf8(path)):
                found.append(path)
        except FileNotFoundError:
            continue
        except UnicodeDecodeError:
            found.append(path)
    return found


def _says_something(text: str) -> bool:
    try:
        value = json.loads(text)["nextSnapshot"]
    except (ValueError, TypeError, KeyError, RecursionError):
        return False
    return type(value) is int and value > 0


def _write(table: Any, path: str, next_snapshot: int) -> None:
    """Replace the file in one step. (pypaimon's atomic write refuses to replace.)"""
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
