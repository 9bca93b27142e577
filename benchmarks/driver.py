"""How many clips a second the pool's driver reads, dispatches and commits, and what each costs.

``python -m benchmarks.driver FOLDER --clips 200000 --frames 0`` writes so many rows of ``clips``
into a lake under FOLDER and runs the real driver over them: real Ray actors whose stages do
nothing, real table options, maintenance as the settings have it. A second start over the finished
lake shows how long it takes when all of its clips have their row, and Flink counts the rows in
the end. It prints a table and writes ``FOLDER/driver.json``.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks import clips
from benchmarks.committed import committed
from processors.pool.cluster import prepare_environment
from processors.pool.driver import Driver
from processors.pool.lake import Lake
from schemas.recipe import dump_recipe, read_dumped
from schemas.sections import LocalSettings, PoolSettings
from schemas.settings import CHECKOUT, Settings, dump_settings, load_settings_json
from tests.flink_query import flink_query

SAMPLE_S = 0.5
CHAINS = {0: "benchmarks.chains:Kept", 8: "benchmarks.chains:KeptWithFrames"}
_READY = "driver epoch"
"""What the driver logs when it has read what is done, and begins with what is not."""


@dataclass(frozen=True)
class Sample:
    """The driver at one moment of its run."""

    seconds: float
    """Since its process began."""
    committed: int
    driver_cpu_s: float
    actors_cpu_s: float
    """Of all other processes of the run: actors and Ray's own."""
    rss_mb: float
    """Of the driver's process."""


@dataclass(frozen=True)
class Figures:
    """One run of the driver, from the moment at which it was ready to the last commit."""

    clips: int
    start_up_s: float
    """From the start of the process, Ray and its actors included."""
    seconds: float
    clips_per_s: float
    driver_cpu_us_per_clip: float
    all_cpu_us_per_clip: float
    first_tenth_cpu_us_per_clip: float
    last_tenth_cpu_us_per_clip: float
    """Of all processes, over the first and the last tenth of the clips."""
    rss_mb_first: float
    rss_mb_last: float
    rss_mb_most: float
    """``first`` is after a tenth of the clips."""
    commits: int
    load_before: float
    load_after: float


def main() -> None:
    parser = argparse.ArgumentParser(prog="benchmarks.driver", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--clips", type=int, default=100_000)
    parser.add_argument("--frames", type=int, choices=CHAINS, default=0)
    parser.add_argument("--actors", type=int, default=1)
    parser.add_argument("--micro-batch", type=int, default=128)
    parser.add_argument("--snapshot-rows", type=int, default=20_000)
    parser.add_argument("--drive", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.drive:
        _drive(options.folder, options.frames)
        return
    settings = Settings(
        local=LocalSettings(state_dir=str(options.folder.resolve())),
        pool=PoolSettings(
            min_actors=options.actors,
            micro_batch_clips=options.micro_batch,
            cpus_per_actor=0.5,
        ),
    )
    options.folder.mkdir(parents=True, exist_ok=True)
    (options.folder / "settings.json").write_text(dump_settings(settings))
    (options.folder / "recipe.json").write_text(dump_recipe(clips.recipe()))
    lake = Lake(settings)
    lake.ensure_tables()
    clips.write(lake, options.clips, options.snapshot_rows)
    first = _run(lake, options, options.clips)
    again = _run(lake, options, 0)
    report: dict[str, Any] = {
        "command": " ".join(sys.argv[1:]),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "cpus": os.cpu_count(),
        "run": asdict(first),
        "start_up_with_all_rows_s": again.start_up_s,
    }
    for name, value in [*report["run"].items(), *list(report.items())[-1:]]:
        print(f"{name.replace('_', ' '):32} {value:>12}", flush=True)
    tables = ["enriched_clips", *["clip_frames"] * bool(options.frames)]
    query = " UNION ALL ".join(
        f"SELECT '{name}', COUNT(*), COUNT(DISTINCT clip_id) "
        f"FROM lake.`{settings.catalog.database}`.`{name}`"
        for name in tables
    )
    counted = flink_query(settings, query, heap="1500m", timeout_s=900)
    by_table = {name: (rows, clips) for name, rows, clips in counted}
    report["rows_and_clips_by_flink"] = by_table
    (options.folder / "driver.json").write_text(json.dumps(report, indent=2) + "\n")
    for name, found in by_table.items():
        print(f"{name + ', by Flink':32} {found[0]:>12} rows of {found[1]} clips")
        if found != (options.clips, options.clips):
            raise SystemExit(f"{name} should have {options.clips}")


def _drive(folder: Path, frames: int) -> None:
    """Be the driver's process: work until nothing is left to do."""
    logging.basicConfig(level=logging.INFO, format="%(created)f %(message)s")
    settings = load_settings_json(str(folder / "settings.json"))
    recipe = read_dumped((folder / "recipe.json").read_text())
    prepare_environment(settings)
    Driver(settings, recipe, chain=CHAINS[frames]).run(until_idle=True)


def _run(lake: Lake, options: argparse.Namespace, new: int) -> Figures:
    """Start the driver and watch it until it has nothing to do."""
    before = committed(lake, "enriched_clips")
    commits = lake.latest_snapshot_id("enriched_clips") or 0
    load = os.getloadavg()[0]
    log = options.folder / "driver.log"
    started = time.time()
    with log.open("wb") as out:
        child = subprocess.Popen(
            [
                *(sys.executable, "-m", "benchmarks.driver", str(options.folder), "--drive"),
                *("--frames", str(options.frames)),
            ],
            cwd=CHECKOUT,
            stdout=out,
            stderr=out,
        )
    try:
        samples = list(_samples(child, lake, started, before))
    finally:
        child.kill()
    if child.wait() != 0:
        raise SystemExit(f"the driver ended with {child.returncode}; see {log}")
    ready = _moment(log, _READY) - started
    return _figures(
        samples,
        ready,
        new,
        commits=(lake.latest_snapshot_id("enriched_clips") or 0) - commits,
        loads=(load, os.getloadavg()[0]),
    )


def _samples(
    child: subprocess.Popen[bytes], lake: Lake, started: float, before: int
) -> Iterator[Sample]:
    process = psutil.Process(child.pid)
    last: Sample | None = None
    # CPU time of a process that has ended is gone with it: the highest sum stands.
    others = 0.0
    while child.poll() is None:
        try:
            own = sum(process.cpu_times()[:2])
            rss = process.memory_info().rss
            now = 0.0
            for part in process.children(recursive=True):
                try:
                    now += sum(part.cpu_times()[:2])
                except psutil.NoSuchProcess:
                    continue
            others = max(others, now)
        except psutil.NoSuchProcess:
            break
        last = Sample(
            time.time() - started,
            committed(lake, "enriched_clips") - before,
            own,
            others,
            rss / 1e6,
        )
        yield last
        time.sleep(SAMPLE_S)


def _figures(
    samples: list[Sample], ready: float, new: int, *, commits: int, loads: tuple[float, float]
) -> Figures:
    begin = max((s for s in samples if s.seconds <= ready), key=lambda s: s.seconds)
    end = next(s for s in samples if s.committed >= new)
    tenth = next(s for s in samples if s.committed >= new / 10)
    last_tenth = next(s for s in samples if s.committed >= new * 0.9)
    working = [s for s in samples if tenth.seconds <= s.seconds <= end.seconds]
    seconds = end.seconds - ready

    def per_clip(start: Sample, stop: Sample, *, driver_only: bool = False) -> float:
        count = stop.committed - start.committed
        cpu = stop.driver_cpu_s - start.driver_cpu_s
        if not driver_only:
            cpu += stop.actors_cpu_s - start.actors_cpu_s
        return round(1e6 * cpu / count, 1) if count else 0.0

    return Figures(
        clips=new,
        start_up_s=round(ready, 2),
        seconds=round(seconds, 2),
        clips_per_s=round(new / seconds, 1) if new else 0.0,
        driver_cpu_us_per_clip=per_clip(begin, end, driver_only=True),
        all_cpu_us_per_clip=per_clip(begin, end),
        first_tenth_cpu_us_per_clip=per_clip(begin, tenth),
        last_tenth_cpu_us_per_clip=per_clip(last_tenth, end),
        rss_mb_first=round(tenth.rss_mb, 1),
        rss_mb_last=round(end.rss_mb, 1),
        rss_mb_most=round(max(s.rss_mb for s in working), 1),
        commits=commits,
        load_before=loads[0],
        load_after=loads[1],
    )


def _moment(log: Path, what: str) -> float:
    """When the driver logged a line."""
    for line in log.read_text(errors="replace").splitlines():
        created, _, message = line.partition(" ")
        if message.startswith(what):
            return float(created)
    raise SystemExit(f"{log} has no line {what!r}")


if __name__ == "__main__":
    main()
