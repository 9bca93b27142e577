"""How long the pool's commits take as they become many, with and without maintenance.

``python -m benchmarks.commits FOLDER --commits 2000 --every 600`` writes a lake under FOLDER,
commits one row at a time to ``enriched_clips``, and prints the median milliseconds of each hundred
commits. ``--every 0`` maintains nothing. One row is the least there is: what grows is the table's
history, and not the rows.
"""

from __future__ import annotations

import argparse
import statistics
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from processors.pool.commits import Committer
from processors.pool.lake import Lake
from processors.pool.lock import only_driver
from processors.pool.maintenance import maintain
from processors.pool.position import Position
from processors.results import ClipResult
from schemas.reasons import ClipStatus
from schemas.settings import Settings
from schemas.tables import ENRICHED_CLIPS, ColumnType

WINDOW = 100
_VALUES: dict[ColumnType, Any] = {
    ColumnType.STRING: "text",
    ColumnType.BOOLEAN: True,
    ColumnType.INT: 1,
    ColumnType.BIGINT: 1,
    ColumnType.DOUBLE: 0.5,
    ColumnType.TIMESTAMP: datetime(2026, 1, 31, tzinfo=UTC),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.commits", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--commits", type=int, default=2000)
    parser.add_argument("--every", type=int, default=600)
    options = parser.parse_args()
    settings = Settings(
        local={"state_dir": str(options.folder)},
        maintenance={"keep_snapshots_h": 1 / 60},
    )
    lake = Lake(settings)
    lake.ensure_tables()
    position = Position(lake.identity("clips"), 1, epoch=1)
    committer = Committer(lake, 1)
    times: list[float] = []
    for number in range(1, options.commits + 1):
        committer.add(_result(number), (1 << 40) + number)
        started = time.perf_counter()
        committer.commit(position)
        times.append(time.perf_counter() - started)
        if number % WINDOW == 0:
            median = 1000 * statistics.median(times[-WINDOW:])
            print(f"commits {number - WINDOW + 1} to {number}: median {median:.1f} ms", flush=True)
        if options.every and number % options.every == 0:
            started = time.perf_counter()
            with only_driver(settings):
                maintain(settings, [ENRICHED_CLIPS.name])
            print(f"maintained in {time.perf_counter() - started:.1f} s", flush=True)


def _result(number: int) -> ClipResult:
    row = {column.name: _VALUES.get(column.type) for column in ENRICHED_CLIPS.columns}
    return ClipResult(f"{number:032x}", ClipStatus.KEPT, {**row, "clip_id": f"{number:032x}"})


if __name__ == "__main__":
    main()
