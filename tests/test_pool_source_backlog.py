"""A long backlog of ``clips``, compactions in between: read whole, and a snapshot at a time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from processors.pool.lake import Lake
from schemas.settings import CHECKOUT, Settings, dump_settings
from tests import pool_lake

SNAPSHOTS = 500
COMPACT_EVERY = 25
WRITTEN = 120
URI = "file:///" + "x" * 500
GROWTH_KIB = 12 * 1024
"""Reading everything in one plan, or keeping what was read, takes several times as much."""


def make_backlog(lake: Lake, *, rows: int) -> int:
    """`SNAPSHOTS` snapshots, every `COMPACT_EVERY`-th a compaction's; how many clips they hold.

    The first `WRITTEN` are written; the others are theirs again under another number, since a
    commit to a table of so many files takes long.
    """
    table = lake.table("clips")
    for number in range(WRITTEN):
        batch = [pool_lake.clip(number * rows + n, uri=URI) for n in range(rows)]
        pool_lake.append_clips(lake, batch)
    manager = table.snapshot_manager()
    texts = [
        manager.file_io.read_file_utf8(manager.get_snapshot_path(n + 1)) for n in range(WRITTEN)
    ]
    clips = 0
    for number in range(1, SNAPSHOTS + 1):
        snapshot = json.loads(texts[number % WRITTEN])
        compaction = number % COMPACT_EVERY == 0
        snapshot |= {"id": number, "commitKind": "COMPACT" if compaction else "APPEND"}
        manager.file_io.overwrite_file_utf8(manager.get_snapshot_path(number), json.dumps(snapshot))
        clips += 0 if compaction else rows
    manager.file_io.overwrite_file_utf8(manager.latest_file, str(SNAPSHOTS))
    return clips


def test_500_snapshots_with_compactions_are_read_in_bounded_memory(tmp_path: Path) -> None:
    settings = pool_lake.settings(tmp_path)
    lake = pool_lake.new_lake(settings)
    clips = make_backlog(lake, rows=20)
    found = read_backlog(settings)
    assert (found["clips"], found["next"]) == (clips, SNAPSHOTS + 1)
    assert found["grown"] < GROWTH_KIB


def read_backlog(settings: Settings) -> dict[str, int]:
    file = settings.state_dir / "settings.json"
    file.write_text(dump_settings(settings))
    done = subprocess.run(
        [sys.executable, "-m", "tests.pool_backlog_main", str(file)],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    result: dict[str, int] = json.loads(done.stdout)
    return result
