"""Maintenance of the pool's tables by the real procedures: nothing is lost, files become few."""

from __future__ import annotations

import threading
from pathlib import Path

import pyarrow as pa
import pytest

from processors.pool.commits import Committer
from processors.pool.driver import Driver
from processors.pool.lake import Lake
from processors.pool.lock import only_driver
from processors.pool.maintenance import (
    Maintenance,
    MaintenanceFailed,
    known_tables,
    maintain,
)
from processors.pool.position import Position, load_stored
from processors.pool.source import first_position
from processors.pool.upkeep import ask_driver
from processors.results import passed
from schemas.problems import ConfigError
from schemas.settings import Settings
from schemas.tables import CLIP_FRAMES, TABLES
from tests import pool_lake
from tests.conftest import wait_until

COMMITS = 65
"""More than Paimon expires at once unless it is told to."""
MOST_LEFT = 12
"""Snapshots after a maintenance: the ten that stay, and its own two commits."""
SOON = {"keep_snapshots_h": 1e-6, "timeout_s": 300}


def settings_of(folder: Path, **maintenance: object) -> Settings:
    settings = pool_lake.settings(folder)
    section = settings.maintenance.model_copy(update={**SOON, **maintenance})
    return settings.model_copy(update={"maintenance": section})


def commit_rows(lake: Lake, commits: int) -> Position:
    """So many commits of one row each; the position that they hold."""
    pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(commits)])
    position = first_position(lake).in_epoch(3)
    committer = Committer(lake, 3)
    for n in range(commits):
        commit(committer, position, range(n, n + 1))
    return position


def commit(committer: Committer, position: Position, numbers: range) -> None:
    """One commit of these clips' rows."""
    for n in numbers:
        committer.add(passed(pool_lake.clip(n), pool_lake.recipe(), {}), (3 << 40) + n)
    committer.commit(position)


def files(lake: Lake, name: str) -> list[str]:
    """Names of the files that a read of the whole table opens."""
    splits = lake.table(name).new_read_builder().new_scan().plan().splits()
    return [file.file_name for split in splits for file in split.files]


def test_maintenance_makes_few_files_and_keeps_rows_and_position(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    lake = pool_lake.new_lake(settings)
    position = commit_rows(lake, COMMITS)
    before = sorted(lake.read("enriched_clips", ["clip_id"]).column("clip_id").to_pylist())
    assert len(files(lake, "enriched_clips")) == COMMITS
    # Damaged by a kill: Java's expiry would fail over it.
    damaged = tmp_path / "lake/cliplake.db/enriched_clips/consumer/consumer-somebody"
    damaged.parent.mkdir()
    damaged.touch()
    with only_driver(settings):
        maintain(settings, ["enriched_clips"])
    assert load_stored(Lake(settings)).position == position
    assert len(pool_lake.snapshots(lake, "enriched_clips")) > COMMITS
    damaged.unlink()
    with only_driver(settings):
        done = maintain(settings, ["enriched_clips", "clip_frames", "clips"])
    assert [(step.table, step.procedure) for step in done] == [
        ("enriched_clips", "expire_snapshots"),
        ("enriched_clips", "compact"),
        ("enriched_clips", "compact_manifest"),
        ("enriched_clips", "remove_orphan_files"),
        ("clips", "remove_orphan_files"),
    ]
    after = Lake(settings)
    rows = after.read("enriched_clips", ["clip_id"]).column("clip_id").to_pylist()
    assert sorted(rows) == before
    assert len(files(after, "enriched_clips")) <= 2
    assert load_stored(after).position == position
    assert len(pool_lake.snapshots(after, "enriched_clips")) <= MOST_LEFT
    # The table of the other writer has its snapshots.
    assert [s.id for s in pool_lake.snapshots(after, "clips")] == [1]


def test_a_maintenance_leaves_what_is_large_alone(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    lake = pool_lake.new_lake(settings)
    pool_lake.append_clips(lake, [pool_lake.clip(0)])
    position = first_position(lake).in_epoch(3)
    committer = Committer(lake, 3)

    def maintained(*commits: range) -> set[str]:
        for numbers in commits:
            commit(committer, position, numbers)
        with only_driver(settings):
            maintain(settings, ["enriched_clips"])
        return set(files(lake, "enriched_clips"))

    large = maintained(range(1000), range(1000, 2000))
    # Ten commits take up more bytes than all that was there.
    more = maintained(*(range(start, start + 10) for start in range(2000, 2100, 10)))
    assert large < more
    assert len(more) == 2 * len(large)
    again = maintained(*(range(start, start + 10) for start in range(2100, 2300, 10)))
    assert large < again
    assert len(again) == len(more)
    assert lake.read("enriched_clips", ["clip_id"]).num_rows == 2300


def test_maintenance_without_its_interpreter_says_so(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    flink = settings.flink.model_copy(update={"python": str(tmp_path / "none")})
    settings = settings.model_copy(update={"flink": flink})
    with pytest.raises(MaintenanceFailed, match=r"none cannot be run.*flink\.python"):
        Maintenance(settings, [("enriched_clips", "compact")])


def test_maintenance_that_takes_too_long_is_ended(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, timeout_s=0.5)
    run = Maintenance(settings, [("enriched_clips", "compact")])
    with pytest.raises(MaintenanceFailed, match=r"maintenance\.timeout_s"):
        wait_until(lambda: run.ended() is not None, 60)


def test_a_table_that_is_none_is_refused() -> None:
    assert known_tables([]) == [table.name for table in TABLES]
    with pytest.raises(ConfigError, match="no table 'clip'; there are videos"):
        known_tables(["clip"])


def test_a_driver_maintains_its_tables_while_it_runs(tmp_path: Path, ray_address: str) -> None:
    settings = settings_of(tmp_path)
    pool = settings.pool.model_copy(update={"ray_address": ray_address})
    settings = settings.model_copy(update={"pool": pool})
    lake = pool_lake.new_lake(settings)
    pool_lake.append_clips(lake, [pool_lake.clip(n) for n in range(3)])
    driver = Driver(settings, pool_lake.recipe(), chain="tests.pool_chains:Scripted")
    worker = threading.Thread(target=driver.run)
    worker.start()
    try:
        wait_until(lambda: lake.read("enriched_clips", ["clip_id"]).num_rows == 3, 120)
        answers: list[str] = []
        asking = threading.Thread(
            target=lambda: answers.extend(
                step.table for step in ask_driver(settings, ["enriched_clips", "clip_frames"])
            )
        )
        asking.start()
        for n in range(3, 9):
            pool_lake.append_clips(lake, [pool_lake.clip(n)])
        asking.join(timeout=400)
        assert {"enriched_clips", "clip_frames"} == set(answers)
        wait_until(lambda: lake.read("enriched_clips", ["clip_id"]).num_rows == 9, 120)
    finally:
        driver.stop()
        worker.join(timeout=120)
    assert pool_lake.rows_ever_appended(lake, "enriched_clips") >= 9


def test_frame_files_are_made_few_and_none_is_lost(tmp_path: Path) -> None:
    settings = settings_of(tmp_path)
    lake = pool_lake.new_lake(settings)
    for n in range(MOST_LEFT + 1):
        builder = lake.table("clip_frames").new_batch_write_builder()
        writer, commit = builder.new_write(), builder.new_commit()
        row = {"clip_id": pool_lake.clip_id(n), "enrich_seq": n, "video_frames": [b"%d" % n]}
        writer.write_arrow(pa.Table.from_pylist([row], schema=CLIP_FRAMES.arrow_schema()))
        commit.commit(writer.prepare_commit())
        writer.close()
    before = lake.read("clip_frames").sort_by("enrich_seq")
    assert len(files(lake, "clip_frames")) == MOST_LEFT + 1
    with only_driver(settings):
        maintain(settings, ["clip_frames"])
    after = Lake(settings)
    assert len(files(after, "clip_frames")) == 1
    assert after.read("clip_frames").sort_by("enrich_seq").equals(before)
    assert len(pool_lake.snapshots(after, "clip_frames")) <= MOST_LEFT
