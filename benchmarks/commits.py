"""What the pool's commits cost as they become many, maintenance included.

``python -m benchmarks.commits FOLDER --commits 20000 --rows 50 --every 300`` writes a lake under
FOLDER, commits so many rows at a time to ``enriched_clips`` as the driver does, and prints a line
for each stretch between two maintenances: the median time of a commit, its CPU time, that of the
maintenance, and CPU microseconds a clip with both in it. ``--every 0`` maintains nothing. Old
snapshots expire after a minute, so that a run of minutes has what one of days has.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks import clips
from processors.pool.commits import Committer
from processors.pool.lake import Lake
from processors.pool.lock import only_driver
from processors.pool.maintenance import maintain
from processors.pool.position import EPOCH_BITS, Position
from processors.results import ClipResult, passed
from schemas.reasons import ClipStatus
from schemas.sections import LocalSettings, MaintenanceSettings
from schemas.settings import Settings
from schemas.tables import ENRICHED_CLIPS

WINDOW = 300
"""Commits in a line where nothing is maintained."""


@dataclass(frozen=True)
class Stretch:
    """Commits between two maintenances, and the one after them."""

    commits: int
    """Made so far."""
    rows: int
    """Committed so far."""
    commit_ms: float
    """Median, wall time."""
    commit_cpu_ms: float
    """Mean; the rows' own making is left out."""
    maintenance_s: float
    maintenance_cpu_s: float
    cpu_us_per_clip: float
    load: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.commits", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--commits", type=int, default=3000)
    parser.add_argument("--rows", type=int, default=50)
    parser.add_argument("--every", type=int, default=300)
    options = parser.parse_args()
    settings = Settings(
        local=LocalSettings(state_dir=str(options.folder.resolve())),
        maintenance=MaintenanceSettings(keep_snapshots_h=1 / 60),
    )
    lake = Lake(settings)
    lake.ensure_tables()
    position = Position(lake.identity("clips"), 1, epoch=1)
    committer = Committer(lake, 1)
    like = passed(clips.rows(range(1)).to_pylist()[0], clips.recipe(), clips.SCORES).enriched
    stretches: list[Stretch] = []
    walls: list[float] = []
    cpus: list[float] = []
    for number in range(1, options.commits + 1):
        for row in range(number * options.rows, (number + 1) * options.rows):
            clip_id = clips.clip_id(row)
            result = ClipResult(clip_id, ClipStatus.KEPT, {**like, "clip_id": clip_id})
            committer.add(result, (1 << EPOCH_BITS) + row)
        wall, cpu = time.perf_counter(), time.process_time()
        committer.commit(position)
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
        if number % (options.every or WINDOW):
            continue
        seconds, child_cpu_s = _maintained(settings) if options.every else (0.0, 0.0)
        clips_here = len(walls) * options.rows
        stretch = Stretch(
            commits=number,
            rows=number * options.rows,
            commit_ms=round(1000 * statistics.median(walls), 1),
            commit_cpu_ms=round(1000 * statistics.mean(cpus), 1),
            maintenance_s=round(seconds, 1),
            maintenance_cpu_s=round(child_cpu_s, 1),
            cpu_us_per_clip=round(1e6 * (sum(cpus) + child_cpu_s) / clips_here, 1),
            load=round(os.getloadavg()[0], 1),
        )
        stretches.append(stretch)
        print(" ".join(f"{name}={value}" for name, value in asdict(stretch).items()), flush=True)
        walls, cpus = [], []
    report = [asdict(stretch) for stretch in stretches]
    (options.folder / "commits.json").write_text(json.dumps(report, indent=2) + "\n")


def _maintained(settings: Settings) -> tuple[float, float]:
    """Maintain the table; the seconds that took, and the CPU seconds of the child and its JVM."""
    started, ended = time.perf_counter(), threading.Event()
    used: dict[int, float] = {}
    watching = threading.Thread(target=_watch, args=(ended, used))
    watching.start()
    try:
        with only_driver(settings):
            maintain(settings, [ENRICHED_CLIPS.name])
    finally:
        seconds = time.perf_counter() - started
        ended.set()
        watching.join()
    return seconds, sum(used.values())


def _watch(ended: threading.Event, used: dict[int, float]) -> None:
    """Note the CPU seconds of all children: a JVM that is killed is counted nowhere else."""
    process = psutil.Process()
    while not ended.wait(0.1):
        for child in process.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                used[child.pid] = sum(child.cpu_times()[:2])


if __name__ == "__main__":
    main()
